"""Puts `--set key=value` into a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.assignment import read_assignment
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.recipe.schema.recipe import ALTERNATIVES, Recipe

__all__ = ["apply_overrides"]

_SHORT_FORMS = {
    "model": "path",
    "adapter": "use",
    "quantizer": "use",
    "data.train": "path",
    "data.holdout": "path",
    "data.chat_template": "path",
    "tokenizer.replace": "path",
}
"""Sections that may be one word, and the field that this word stands for; "use" of others."""


_SHOWN = 20
"""How many keys are told that go with what is set as a whole."""


def apply_overrides(document: Document, assignments: list[str]) -> None:
    """Changes the document's data; what the file, or an earlier assignment, says against one gives way, with a notice.

    Args:
        document: What the file holds.
        assignments: Each "section.key=value", the value as YAML writes it.

    Raises:
        RecipeError: An assignment has another form, or its key lies below something that is no section.
    """
    for assignment in assignments:
        found = read_assignment(assignment, "--set", hint="For example: --set training.epochs=3")
        path: KeyPath = tuple(part.strip() for part in found.key.split("."))
        said = {key: _value(document, key) for key, origin in document.origins.items() if _is_override(origin)}
        _tell_lost_keys(document, path, found.value, found.where)
        _assign(document, path, found.value, found.where)
        lost = [key for key in said if key[: len(path)] == path and said[key] != _value(document, key)]
        for earlier in dict.fromkeys(document.origins[key] for key in lost):
            document.notices.append(f"{found.where} replaces {earlier}")
        document.origins = {k: v for k, v in document.origins.items() if k[: len(path)] != path}
        document.origins[path] = found.where
    for path in [key for key, origin in document.origins.items() if _is_override(origin)]:
        _drop_alternatives(document, path)
    _raise_tokens_per_step(document)


def _tell_lost_keys(document: Document, path: KeyPath, value: Any, where: str) -> None:
    """Tells which of the file's keys go with what is set as a whole, such as a rank with its adapter."""
    before = _value(document, path)
    lost = [".".join(map(str, key)) for key in _lost(before, value, path) if not _is_overridden(document, key)]
    if lost:
        what = "the whole section" if len(path) == 1 else f"all of {'.'.join(map(str, path))}"
        more = f" and {len(lost) - _SHOWN:,} more keys" if len(lost) > _SHOWN else ""
        told = f"{', '.join(lost[:_SHOWN])}{more}"
        document.notices.append(f"{where} replaces {what}, also {told} of {document.where(path)}")


def _lost(before: Any, after: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yields the keys of what stands at a path that another value in its place does not have.

    Of a list of files they are those of each entry that the entry in its place does not have.
    """
    short = _SHORT_FORMS.get(".".join(part for part in path if isinstance(part, str)))
    if isinstance(before, list) and short:
        others = after if isinstance(after, list) else [after]
        for number, entry in enumerate(before):
            yield from _lost(entry, others[number] if number < len(others) else None, (*path, number))
    if not isinstance(before, dict):
        return
    kept = after if isinstance(after, dict) else {short or "use": after}
    for key, value in before.items():
        if key in kept:
            yield from _lost(value, kept[key], (*path, key))
        else:
            yield (*path, key)


def _value(document: Document, path: KeyPath) -> Any:
    """Returns what stands at a path; None where nothing does."""
    found: Any = document.data
    for part in path:
        found = found.get(str(part)) if isinstance(found, dict) else None
    return found


def _is_override(origin: str) -> bool:
    return origin.startswith("--set ")


def _drop_alternatives(document: Document, path: KeyPath) -> None:
    """Takes the file's key away that says the same otherwise as one that was set, such as epochs where steps were."""
    section = document.data.get(str(path[0]))
    keys = ALTERNATIVES.get(str(path[0]), frozenset())
    if len(path) < 2 or path[1] not in keys or not isinstance(section, dict) or section.get(path[1]) is None:
        return
    for other in sorted(keys - {path[1]}):
        if section.get(other) is not None and not _is_overridden(document, (path[0], other)):
            told = f" {section[other]}" if isinstance(section[other], int) else ""
            place = document.where((path[0], other)) if document.from_file else document.file
            document.notices.append(f"{document.origins[path]} replaces {path[0]}.{other}{told} of {place}")
            del section[other]


def _is_overridden(document: Document, path: KeyPath) -> bool:
    return any(_is_override(origin) for key, origin in document.origins.items() if key[: len(path)] == path)


def _raise_tokens_per_step(document: Document) -> None:
    """Lets the file's tokens of a step follow where longer examples than those were set."""
    data, training = document.data.get("data"), document.data.get("training")
    path = ("data", "max_length")
    if not isinstance(data, dict) or not isinstance(training, dict) or not _is_overridden(document, path):
        return
    longest, tokens = data.get("max_length"), training.get("tokens_per_step")
    if not (isinstance(longest, int) and isinstance(tokens, int) and longest > tokens):
        return
    if not _is_overridden(document, ("training", "tokens_per_step")):
        training["tokens_per_step"] = longest
        told = f"{document.origins[path]} raises training.tokens_per_step from {tokens} to {longest}"
        document.notices.append(f"{told}: a step holds the longest example")


def _default_of(section: str) -> dict[str, Any]:
    """Returns what a section is begun with that the file lacks: the default's name, where it names a provider."""
    field = Recipe.model_fields.get(section)
    default = field.default if field else None
    return {"use": default.use} if isinstance(default, ProviderSection) else {}


def _assign(document: Document, path: KeyPath, value: Any, where: str) -> None:
    section = document.data
    for depth, part in enumerate(path[:-1]):
        name = str(part)
        inner = section.get(name)
        if depth == 0 and isinstance(inner, str) and name in _SHORT_FORMS:
            inner = {_SHORT_FORMS[name]: inner}
        if inner is None:
            inner = _default_of(name) if depth == 0 else {}
            document.origins[path[: depth + 1]] = where
        if not isinstance(inner, dict):
            raise RecipeError(f"'{name}' is no section", where=where)
        section[name] = inner
        section = inner
    section[str(path[-1])] = value
