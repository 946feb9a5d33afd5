"""Metrics that read an answer as JSON (RFC 8259): NaN and repeated keys are none."""

from __future__ import annotations

from typing import Any

from graftkit import Answered
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_strict_json

from graftkit_metrics.config import JsonValidConfig

__all__ = ["JsonEqual", "JsonValid"]

_MOST_VALUES = 100_000

_NO_JSON: Any = object()


class JsonValid:
    """Whether the answer is JSON."""

    def __init__(self, config: JsonValidConfig) -> None:
        """It has no fields."""

    def score(self, answered: Answered) -> float:
        """Returns 1 or 0."""
        return float(_parsed(answered.answer) is not _NO_JSON)


class JsonEqual:
    """Whether the answer is the same JSON value as the expected one: whatever the order of keys and the white space."""

    def score(self, answered: Answered) -> float:
        """Returns 1 or 0.

        Raises:
            DataError: The expected answer is no JSON.
        """
        expected, found = _expected(answered), _parsed(answered.answer)
        return float(found is not _NO_JSON and _is_same(found, expected))

    def check(self, answered: Answered) -> None:
        """Makes sure that the expected answer is JSON.

        Raises:
            DataError: It is none.
        """
        _expected(answered)


def _expected(answered: Answered) -> Any:
    """Returns the value of the expected answer.

    Raises:
        DataError: It is no JSON.
    """
    expected = _parsed(answered.expected)
    if expected is _NO_JSON:
        raise DataError(
            "the metric json-equal compares JSON, which the expected answer is not",
            where=answered.record.where,
            hint="Take another metric under evaluation.metrics, such as exact-match.",
        )
    return expected


def _parsed(text: str) -> Any:
    try:
        return parse_strict_json(text, _MOST_VALUES)
    except ValueError:
        return _NO_JSON


def _is_same(one: Any, other: Any) -> bool:
    """Compares as JSON does: 1 and 1.0 are one number, true is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
