"""Parses the JSON of one record, strictly."""

from __future__ import annotations

import json
from typing import Any

from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_strict_json

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
        return parse_strict_json(text, _MOST_VALUES)
    except json.JSONDecodeError as error:
        raise DataError(f"no JSON: {error.msg} at column {error.colno}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {error}", where=where) from None
