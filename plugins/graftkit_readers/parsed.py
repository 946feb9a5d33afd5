"""Parses the JSON of one record, strictly."""

from __future__ import annotations

import json
from typing import Any

from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json

__all__ = ["parse_record"]

_MOST_VALUES = 2_000_000


def parse_record(text: str, where: str) -> Any:
    """Returns what the JSON of a record holds.

    Args:
        text: The JSON.
        where: File and line.

    Raises:
        DataError: It is no JSON, holds a key twice, a number that JSON does not know, or more than 2,000,000 values.
    """
    try:
        return parse_json(text, _MOST_VALUES, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise DataError(f"no JSON: {error.msg} at column {error.colno}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {error}", where=where) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in it twice")
    return result
