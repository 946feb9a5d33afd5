"""Parses the JSON of one record, strictly."""

from __future__ import annotations

import json
import re
from typing import Any

from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_strict_json

__all__ = ["parse_record"]

_MOST_VALUES = 2_000_000
_OF_PYTHON = "This is Python's notation, not JSON: write each record with json.dumps(record)."


def parse_record(text: str, where: str, hint: str = "") -> Any:
    """Returns what the JSON of a record holds.

    Args:
        text: The JSON.
        where: File and line.
        hint: What to do about what is no JSON.

    Raises:
        DataError: It is no JSON, holds a key twice, a number that JSON does not know, or more than 2,000,000 values.
    """
    try:
        return parse_strict_json(text, _MOST_VALUES)
    except json.JSONDecodeError as error:
        python = re.match(r"\s*\{\s*'", text)
        raise DataError(
            f"no JSON: {error.msg} at column {error.colno}", where=where, hint=_OF_PYTHON if python else hint
        ) from None
    except ValueError as error:
        raise DataError(f"no JSON: {error}", where=where) from None
