"""Lists that a table holds as text: JSON, or as Python writes them, which is what pandas makes of a column of lists."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_strict_json

__all__ = ["list_in_text"]

_MOST_VALUES = 2_000_000
_MOST_CHARACTERS = 1_000_000
"""Of a list in Python's notation, whose tree takes a hundred times its size."""

_STRING = r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\""
_ALONE = r"[\s\[\](){},:]|[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?![\w.+-])|\b(?:None|True|False)\b"
_LIST = re.compile(f"(?:{_STRING}|{_ALONE})*+", re.DOTALL)
"""What stands in a list that Python writes: its parser is given nothing that nests by operators.

It is matched from the beginning on: a quote that nothing closes is looked for an end of once.
"""
_STRINGS = re.compile(_STRING, re.DOTALL)

_HINT = 'Write it as JSON does, ["a", "b"], or the records as JSON Lines.'


def list_in_text(text: str, name: str, where: str) -> list[Any] | None:
    """Returns the list that a value of a table stands for; None of an empty value.

    Args:
        text: The value.
        name: Its column.
        where: File and line.

    Raises:
        DataError: It is no list.

    Example:
        >>> list_in_text("['Ada', 'lives']", "tokens", "a.csv:2")
        ['Ada', 'lives']
    """
    if not text.strip():
        return None
    try:
        found = _parsed(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError | SyntaxError) else str(error) or "it nests too deep"
        raise DataError(f'"{name}" is no list: {told}', where=where, hint=_HINT) from None
    if not isinstance(found, list):
        raise DataError(f'"{name}" is no list, and reader.lists names it', where=where, hint=_HINT)
    return found


def _parsed(text: str) -> Any:
    """Returns the value.

    Raises:
        ValueError: It is none, or too large.
        SyntaxError: It is neither JSON nor in Python's notation.
    """
    try:
        return parse_strict_json(text, _MOST_VALUES)
    except json.JSONDecodeError:
        if len(text) > _MOST_CHARACTERS:
            raise
    if not _LIST.fullmatch(text):
        raise ValueError("it is neither JSON nor a list as Python writes one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        found = _as_json(ast.literal_eval(text.strip()))
    if len(_STRINGS.findall(text)) != _strings_in(found):
        raise ValueError("its texts have no comma between them, as numpy writes arrays")
    return found


def _as_json(value: Any) -> Any:
    """Returns a value as JSON has it: tuples as lists."""
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    return list(map(_as_json, value)) if isinstance(value, list | tuple | set) else value


def _strings_in(value: Any) -> int:
    """Returns how many texts a value holds, keys among them."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return sum(map(_strings_in, (*value, *value.values())))
    return sum(map(_strings_in, value)) if isinstance(value, list) else 0
