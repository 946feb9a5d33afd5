"""Reads JSON of strangers, once it is known how many values it makes at most."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from graftkit.interfaces.long_numbers import LONG_NUMBER, is_long_number

__all__ = ["parse_json", "parse_strict_json"]

_SIGN = re.compile(r'[{[,]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_WEIGHTS = {"{": 4, "[": 1, ",": 1}
"""What each object, list and further value counts: in memory an object is several times as large as a list."""


_DEEPEST = 200
"""Levels of lists and objects in one another: further ones are read, but what walks through them runs out of stack."""
_TOO_DEEP = f"it is nested over {_DEEPEST} levels deep"

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON escapes one half of a surrogate pair."""


def parse_json(data: bytes | str, most_values: int = 4_000_000, *, unicode: bool = False, **options: Any) -> Any:
    """Returns what JSON says.

    A megabyte of `[],[],[]` makes a third of a million lists of 56 bytes each, so that a file's size alone bounds
    little.

    Args:
        data: The JSON.
        most_values: How many values it may hold; an object counts as four. A value takes up to 80 bytes.
        unicode: Whether texts must have a UTF-8 form, which those with a lone surrogate have not.
        options: Further keywords of `json.JSONDecoder`.

    Raises:
        ValueError: It is no JSON, or holds more values, or a text without a UTF-8 form where that is asked for, or a
            whole number of thousands of digits, or is nested over 200 levels deep.
    """
    text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
    if sum(weight * text.count(sign) for sign, weight in _WEIGHTS.items()) > most_values:  # those in texts, too
        _check_values(text, most_values)
    try:
        found = _decoder(**options).decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        if is_long_number(error):
            raise ValueError(LONG_NUMBER) from None
        raise
    if text.count("{") + text.count("[") > _DEEPEST and _is_deeper(found, _DEEPEST):
        raise ValueError(_TOO_DEEP)
    if unicode and _HALF_PAIR.search(text):
        _check_unicode(found)
    return found


@lru_cache(maxsize=16)
def _decoder(**options: Any) -> json.JSONDecoder:
    """Returns a decoder, which `json.loads` makes anew for each text where it is given options."""
    return json.JSONDecoder(**options)


def parse_strict_json(data: bytes | str, most_values: int, *, unicode: bool = False) -> Any:
    """Returns what JSON says, as `parse_json` does, without what Python's reader forgives.

    Raises:
        ValueError: As for `parse_json`; or a key stands in an object twice, or a number is none of JSON's, such as NaN.
    """
    return parse_json(data, most_values, unicode=unicode, parse_constant=_no_constant, object_pairs_hook=_unique)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in it twice")
    return result


def _is_deeper(found: Any, levels: int) -> bool:
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(levels):
        inside = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inside for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _check_unicode(found: Any) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end + 20]
        raise ValueError(f"it holds a lone surrogate, which is no Unicode character: {text!a}") from None


def _check_values(text: str, most_values: int) -> None:
    left = most_values
    for sign in _SIGN.finditer(text):
        left -= _WEIGHTS.get(text[sign.start()], 0)
        if left < 0:
            raise ValueError(f"it holds more than {most_values:,} values")
