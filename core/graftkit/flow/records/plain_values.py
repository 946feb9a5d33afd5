"""Copies of what plugins' readers and formats give, made of plain types, so that nothing changes them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args

from graftkit.interfaces.samples import Message, Sample, ToolCall

__all__ = ["SAMPLES", "plain_sample", "plain_value"]

SAMPLES: frozenset[type] = frozenset(get_args(Sample))
"""The classes of samples; one of a plugin's own may say anything of itself."""

_PARTS = SAMPLES | {Message, ToolCall}
_PLAIN: frozenset[type] = frozenset({str, int, float, bool, type(None)})
"""Types whose values nothing changes, and which most values are of."""
_SCALARS: Mapping[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
"""Types -> what makes a value of just that type of one of a class that derives from it, and nothing of that class's."""

Given = TypeVar("Given", bound=Sample)


def plain_value(value: Any) -> Any:
    """Returns a copy of a record's value: objects as dict, lists as list, and texts and numbers of no other class.

    Texts such as markupsafe's `Markup` change what they are joined with, and a plugin may go on changing a list.

    Example:
        >>> class Loud(str):
        ...     def __str__(self):
        ...         return self.upper()
        >>> plain_value([Loud("a"), (1, True)])
        ['a', (1, True)]
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {plain_value(key): plain_value(inner) for key, inner in dict.items(value)}
    if isinstance(value, list):
        return [plain_value(inner) for inner in list.__iter__(value)]
    if isinstance(value, tuple):
        return tuple(plain_value(inner) for inner in tuple.__iter__(value))
    kind = next((kind for kind in _SCALARS if isinstance(value, kind)), None)
    return _SCALARS[kind](value) if kind else value


def plain_sample(sample: Given) -> Given:
    """Returns a copy of a sample of which every part is of plain types, with tuples where lists were given.

    Args:
        sample: The sample; its parts are of the classes that they should be of, or of some that derive from these.
    """
    return type(sample)(*(_plain_part(getattr(sample, each.name)) for each in fields(sample)))


def _plain_part(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) in _PARTS:
        return plain_sample(value)
    if isinstance(value, list | tuple):
        return tuple(map(_plain_part, value))
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return plain_value(dict(value))
    return plain_value(value)
