"""From a file, a mapping or `--set` to a checked recipe."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from graftkit.arguments import check_current_folder, check_path, check_texts
from graftkit.errors import RecipeError
from graftkit.recipe.conversion.draft import program_of
from graftkit.recipe.document import MAX_DEPTH, Document, KeyPath, read_document, refuse_extremes
from graftkit.recipe.other_programs import own_key
from graftkit.recipe.overrides import apply_overrides
from graftkit.recipe.paths import anchor_paths
from graftkit.recipe.schema.recipe import Recipe
from graftkit.redact import names_secret
from graftkit.suggest import known_names

__all__ = ["LoadedRecipe", "RecipeSource", "as_recipe_error", "load_recipe", "recipe_name"]

RecipeSource = str | os.PathLike[str] | Mapping[str, Any] | Recipe
"""A recipe: a file's path, a mapping of the same form, in which paths may be `Path`s, or a recipe."""

_A_RECIPE = "Give a recipe's file, a mapping of the same form, or a Recipe."


class LoadedRecipe:
    """A recipe and where each of its keys was said.

    Attributes:
        recipe: The recipe.
        document: What it was read from.
    """

    def __init__(self, recipe: Recipe, document: Document) -> None:
        self.recipe = recipe
        self.document = document


def recipe_name(source: RecipeSource) -> str:
    """Returns a recipe's name: that of its file without its ending.

    Raises:
        RecipeError: It comes from no file.
    """
    if isinstance(source, Recipe | Mapping):
        raise RecipeError(
            "a recipe that comes from no file has no name to call its run's folder by",
            where="out",
            hint='Say the folder: out="runs/NAME".',
        )
    return Path(check_path(source, "recipe", RecipeError, _A_RECIPE)).stem


def load_recipe(
    source: RecipeSource,
    overrides: Sequence[str] = (),
    records: Mapping[str, Path] = MappingProxyType({}),
) -> LoadedRecipe:
    """Reads and checks a recipe.

    Args:
        source: A file's path, a mapping of the same form, or a recipe.
        overrides: "section.key=value", each as `--set` takes it.
        records: The files that stand for `data.train` and `data.holdout`, of which the recipe then names none.

    Raises:
        FolderError: The current folder was deleted.
        RecipeError: Every problem found, one a line, each with its place and the nearest known key.

    Example:
        >>> loaded = load_recipe({"model": "hf-org/model", "data": {"train": "records.jsonl"}}, ["training.epochs=3"])
        >>> loaded.recipe.training.epochs
        3
    """
    check_current_folder()
    document, folder = _document(source)
    apply_overrides(document, check_texts(overrides, "overrides", RecipeError))
    anchor_paths(document, folder)
    _put_records(document, records)
    try:
        recipe = Recipe.model_validate(document.data)
    except ValidationError as error:
        _refuse_other_programs_file(document)
        raise as_recipe_error(error, Recipe, document) from None
    return LoadedRecipe(recipe, document)


def _refuse_other_programs_file(document: Document) -> None:
    """Says that a file is another program's instead of naming each of its keys.

    Raises:
        RecipeError: It is.
    """
    program = None if isinstance(document.data.get("data"), dict) else program_of(document.data)
    if program:
        file = shlex.quote(document.file) if document.from_file else "FILE"
        raise RecipeError(
            f"these are settings of {program}, and no recipe",
            where=document.file,
            hint=f"toolkit init recipe.yaml --from {file} converts them.",
        )


def _put_records(document: Document, records: Mapping[str, Path]) -> None:
    """Names files of records in a recipe that names none; it may say how they are read, as in `{format: preference}`.

    Raises:
        RecipeError: It does.
    """
    section = document.data.setdefault("data", {}) if records else {}
    for key, path in records.items() if isinstance(section, dict) else ():
        said = section.get(key)
        if isinstance(said, dict) and "path" not in said:
            said["path"] = str(path)
            document.origins["data", key, "path"] = key
            continue
        if key in section:
            raise RecipeError(
                f"records are handed in as {key}, and the recipe says data.{key}, too",
                where=document.where(("data", key)),
                hint=f"Leave one of them out; how records are read, data.{key} may say without a path: "
                "{format: preference}.",
            )
        section[key] = str(path)
        document.origins["data", key] = key


def _as_in_a_file(value: Any, path: KeyPath = ()) -> Any:
    """Returns a copy of what a program says as a file would say it: paths as their names.

    Raises:
        RecipeError: It is nested too deeply, as what holds itself is, or no file could say it.
    """
    where = ".".join(["recipe", *map(str, path)])
    if len(path) > MAX_DEPTH:
        raise RecipeError("nested too deeply", where=where, hint="Does it hold itself?")
    if isinstance(value, os.PathLike):
        return check_path(value, where, RecipeError)
    if isinstance(value, list | tuple):
        return [_as_in_a_file(inner, (*path, number)) for number, inner in enumerate(value)]
    try:  # a class of the program's own may raise
        found: Any = dict(value) if isinstance(value, Mapping) else deepcopy(value)
    except Exception:
        kind = type(value).__name__
        raise RecipeError(
            f"it is of the type {kind}, which no recipe's file could hold",
            where=where,
            hint="Records that a program makes are handed in as `train` and `holdout`, which the recipe leaves out.",
        ) from None
    if isinstance(found, dict):
        return {key: _as_in_a_file(inner, (*path, key)) for key, inner in found.items()}
    return found


def _document(source: RecipeSource) -> tuple[Document, Path]:
    if isinstance(source, Recipe):
        return Document(source.model_dump(mode="json", exclude_unset=True), "recipe", from_file=False), Path.cwd()
    if isinstance(source, Mapping):
        document = Document(_as_in_a_file(source), "recipe", from_file=False)
        refuse_extremes(document.data, (), document)
        return document, Path.cwd()
    path = Path(check_path(source, "recipe", RecipeError, _A_RECIPE))
    return read_document(path), path.absolute().parent


def as_recipe_error(
    error: ValidationError,
    model: type[BaseModel],
    document: Document,
    prefix: KeyPath = (),
    beside: Collection[str] = (),
) -> RecipeError:
    """Says what pydantic found in the user's words: place, key, nearest known key.

    Args:
        error: What it found.
        model: The model that refused.
        document: Where the keys were said.
        prefix: The path of the section that the model judges.
        beside: Keys of that section that another model judges.
    """
    problems = _by_key(error.errors(), model, document, prefix)
    lines = [_line(location, found, model, document, prefix, beside) for location, found in problems[:_MOST_TOLD]]
    if len(problems) == 1:
        where, message, hint = lines[0]
        return RecipeError(message, where=where, hint=hint)
    text = "".join(f"\n  {where}: {message}{f' ({hint})' if hint else ''}" for where, message, hint in lines)
    more = f"\n  and {len(problems) - _MOST_TOLD:,} more" if len(problems) > _MOST_TOLD else ""
    return RecipeError(f"{len(problems):,} things are wrong:{text}{more}", where=document.file)


_MOST_TOLD = 100
"""How many problems of a recipe are named: the places of other keys are looked at for each."""


_OF_KEYS = frozenset({"missing", "extra_forbidden"})
"""What pydantic calls problems of keys, whose places end in a key that the input lacks, or that no model has."""


def _by_key(
    problems: Iterable[Any], model: type[BaseModel], document: Document, prefix: KeyPath
) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Returns each problem with its key's place in the model; of a value that may have several forms it is one."""
    found: list[tuple[KeyPath, dict[str, Any]]] = []
    merged: dict[KeyPath, dict[str, Any]] = {}
    for problem in problems:
        location = _location(problem, model, _at(document.data, prefix))
        told = {**problem, "msg": _plain(problem["msg"])}
        if len(location) == len(problem["loc"]) or problem["type"] in _OF_KEYS:
            found.append((location, told))
        elif location in merged:
            former = merged[location]["msg"]
            merged[location]["msg"] = f"{former} or {told['msg'].removeprefix('must be ')}"
        else:
            merged[location] = told
            found.append((location, told))
    return found


_NOTHING = object()


def _at(data: Any, path: KeyPath) -> Any:
    """Returns what stands at a place of a recipe, or `_NOTHING`."""
    for part in path:
        inner = isinstance(data, Mapping) and part in data
        inner = inner or (isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data))
        data = data[part] if inner else _NOTHING
    return data


def _location(problem: Mapping[str, Any], model: type[BaseModel], data: Any) -> KeyPath:
    """Returns the keys that lead to a problem, without pydantic's own names of the forms that a value may have."""
    section: type[BaseModel] | None = model
    keys = list[str | int]()
    for place, part in enumerate(problem["loc"], 1):
        field = section.model_fields.get(str(part)) if section else None
        last = place == len(problem["loc"]) and problem["type"] in _OF_KEYS
        if not (isinstance(part, int) or field or last or _at(data, (part,)) is not _NOTHING):
            continue
        keys.append(part)
        data = _at(data, (part,))
        if not isinstance(part, int):
            section = _section(field.annotation) if field else None
    return tuple(keys)


def _line(
    location: KeyPath,
    problem: Mapping[str, Any],
    model: type[BaseModel],
    document: Document,
    prefix: KeyPath,
    beside: Collection[str],
) -> tuple[str, str, str]:
    path = (*prefix, *location)
    where, dotted = document.where(path), ".".join(map(str, path))
    if problem["type"] == "extra_forbidden":
        known = [*_fields(model, location[:-1]), *(beside if len(location) == 1 else ())]
        name = str(location[-1])
        return where, f"unknown key '{dotted}'", own_key(name, dotted) or _elsewhere(name) or known_names(name, known)
    if problem["type"] == "missing":
        return where, f"'{dotted}' is missing", _description(model, location)
    if problem["type"] == "value_error":
        return where, str(problem["ctx"]["error"]), ""
    value = problem.get("input")
    told = isinstance(value, str | int | float | bool | None) and not names_secret(dotted)
    shown = f", not {value!r}" if told else ""
    return where, f"{dotted}: {problem['msg']}{shown}", _description(model, location)


def _elsewhere(name: str) -> str:
    """Returns the hint for a key that another section of a recipe has; else nothing.

    Example:
        >>> _elsewhere("patience")
        "Did you mean 'evaluation.patience'?"
    """
    places = [f"'{'.'.join(path)}'" for path in _places(Recipe, ()) if path[-1] == name and name not in _OF_MANY]
    return f"Did you mean {' or '.join(places)}?" if places else ""


_OF_MANY = frozenset({"use", "path", "name"})
"""Keys of so many sections that none of them is likely meant."""


def _places(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the path of each key of a model and of the sections in it."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        section = _section(field.annotation)
        if section:
            yield from _places(section, (*path, name))


def _plain(message: str) -> str:
    text = re.sub(r"a valid dictionary or instance of \w+", "a mapping", message)
    text = text.replace("a valid integer", "an integer").replace("a valid ", "a ")
    return text.replace("Input should be", "must be")


def _model_at(model: type[BaseModel], location: KeyPath) -> type[BaseModel] | None:
    """Follows a path through the fields' types to the section that it names."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current else None
        current = _section(field.annotation) if field else None
    return current


def _section(annotation: Any) -> type[BaseModel] | None:
    """Finds the model inside `Model`, `Model | None`, `list[Model]` or an annotated form of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := _section(inner):
            return found
    return None


def _fields(model: type[BaseModel], location: KeyPath) -> list[str]:
    section = _model_at(model, location)
    return list(section.model_fields) if section else []


def _description(model: type[BaseModel], location: KeyPath) -> str:
    section = _model_at(model, location[:-1]) if location else None
    field = section.model_fields.get(str(location[-1])) if section else None
    return field.description or "" if field else ""
