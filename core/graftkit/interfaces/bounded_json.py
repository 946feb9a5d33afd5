"""Reads JSON of strangers, once it is known how many values it makes at most."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["parse_json"]

_SIGN = re.compile(r'[{[,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_WEIGHTS = {"{": 4, "[": 1, ",": 1}
"""What each object, list and further value counts: in memory an object is several times as large as a list."""


def parse_json(data: bytes | str, most_values: int = 4_000_000, **options: Any) -> Any:
    """Returns what JSON says.

    A megabyte of `[],[],[]` makes a third of a million lists of 56 bytes each, so that a file's size alone bounds
    little.

    Args:
        data: The JSON.
        most_values: How many values it may hold; an object counts as four. A value takes up to 80 bytes.
        options: Further keywords of `json.loads`.

    Raises:
        ValueError: It is no JSON, or holds more values.
        RecursionError: It is nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
    if sum(weight * text.count(sign) for sign, weight in _WEIGHTS.items()) > most_values:  # those in texts, too
        _check_values(text, most_values)
    return json.loads(text, **options)


def _check_values(text: str, most_values: int) -> None:
    left = most_values
    for sign in _SIGN.finditer(text):
        left -= _WEIGHTS.get(text[sign.start()], 0)
        if left < 0:
            raise ValueError(f"it holds more than {most_values:,} values")
