"""Which layers PEFT adapts by an adapter_config.json (`peft.tuners.tuners_utils.check_target_module_exists`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["peft_targets"]


def peft_targets(fields: Mapping[str, Any], layers: Iterable[str], outer: Iterable[str] = ()) -> set[str]:
    """Returns those of a model's layers that PEFT adapts.

    Args:
        fields: What an adapter_config.json says; its patterns have passed `check_adapter_config`.
        layers: The dotted paths of the linear layers inside the blocks: what "all-linear" means.
        outer: Those of the embedding and the output layer, as far as they can be adapted; they are meant by name alone.

    Raises:
        ValueError: A field has another type, or an expression does not compile.

    Example:
        >>> sorted(peft_targets({"target_modules": ["q"]}, ["h.0.q", "h.0.qq", "h.1.q"]))
        ['h.0.q', 'h.1.q']
    """
    chosen, every = fields.get("target_modules"), list(layers)
    named = [*every, *outer]
    found = set(every) if chosen == "all-linear" else _named(named, chosen, "target_modules")
    saved = _names(fields.get("modules_to_save") or [], "modules_to_save")
    found -= _named(found, fields.get("exclude_modules"), "exclude_modules")
    found = {layer for layer in found if not any(f".{name}." in f".{layer}." for name in saved)}
    numbers = fields.get("layers_to_transform")
    if numbers is None or numbers == [] or isinstance(chosen, str):
        return found
    kept = {numbers} if isinstance(numbers, int) else set(_names(numbers, "layers_to_transform"))
    patterns = fields.get("layers_pattern") or []
    patterns = _names([patterns] if isinstance(patterns, str) else patterns, "layers_pattern")
    return {layer for layer in found if layer in (chosen or []) or _number(layer, patterns) in kept}


def _named(layers: Iterable[str], names: Any, key: str) -> set[str]:
    """Returns the layers that an expression matches, or whose paths end, from a dot on, in one of the names."""
    if names is None:
        return set()
    if isinstance(names, str):
        expression = _compiled(names)
        return {layer for layer in layers if expression.fullmatch(layer)}
    ends = set(map(str, _names(names, key)))
    return {layer for layer in layers if not ends.isdisjoint(_ends(layer))}


def _ends(path: str) -> Iterator[str]:
    """Yields a path, and what follows each of its dots."""
    while path:
        yield path
        path = path.partition(".")[2]


def _number(layer: str, owners: Iterable[str]) -> int | None:
    """Returns the number of the block that a layer lies in: the first one, below one of the owners if any are named."""
    expressions = [rf"(?:^|.*?\.){re.escape(owner)}\.(\d{{1,9}})\." for owner in owners] or [r".*?\.[^.]*\.(\d{1,9})\."]
    found = (re.match(expression, layer) for expression in expressions)
    return next((int(match[1]) for match in found if match), None)


def _names(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
        raise ValueError(f"its '{key}' is neither a name nor a list of names")
    return value


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(f"'{expression[:100]}' is no regular expression: {error}") from None
