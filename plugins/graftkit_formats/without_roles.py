"""Conversations whose turns don't say who speaks: texts in turn, and pairs of what is said and what is answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graftkit import Column
from graftkit.errors import DataError

__all__ = ["describe_turns", "holds_turns_without_roles", "with_roles"]

_PAIR = ("input", "output")
_SPEAKERS = ("user", "assistant")


def holds_turns_without_roles(column: Column) -> bool:
    """Tells whether a column holds lists of texts, or of pairs with "input" and "output"."""
    texts = "list" in column.types and column.types <= {"list", "null"} and column.items == {"string"}
    return texts or (column.is_list_of_objects and {*_PAIR} <= column.keys and not {"role", "from"} & column.keys)


def describe_turns(turns: Any) -> str:
    """Returns as what turns are read that don't say who speaks; "" of any others."""
    if not isinstance(turns, list) or not turns:
        return ""
    if isinstance(turns[0], str):
        return "the texts of a conversation are the user's and the assistant's in turn"
    return 'of each turn "input" is the user\'s and "output" the assistant\'s' if _is_pair(turns[0]) else ""


def with_roles(turns: Sequence[Any], ignored: Collection[str], where: str) -> list[Any]:
    """Returns turns with their roles: of texts the first one is the user's, of a pair the input is.

    Turns of other shapes stay as they are.

    Args:
        turns: The turns.
        ignored: Keys of pairs that are not read.
        where: File and line.

    Raises:
        DataError: A pair holds more than is read, or one that others follow has no output.

    Example:
        >>> with_roles(["Hi.", "Hello."], (), "a.jsonl:1")[1]
        {'role': 'assistant', 'content': 'Hello.'}
    """
    if all(isinstance(turn, str) for turn in turns):
        return [{"role": _SPEAKERS[number % 2], "content": text} for number, text in enumerate(turns)]
    if not all(map(_is_pair, turns)):
        return list(turns)
    found = []
    for number, turn in enumerate(turns, 1):
        said = {str(key): value for key, value in turn.items() if value is not None and key not in ignored}
        if not {"input"} <= said.keys() <= {*_PAIR} or ("output" not in said and number < len(turns)):
            told = ", ".join(said) or "nothing"
            raise DataError(f'a turn has "input" and "output"; found {told}', where=f"{where}: turn {number}")
        found += [
            {"role": role, "content": said[key]} for role, key in zip(_SPEAKERS, _PAIR, strict=True) if key in said
        ]
    return found


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, dict) and "input" in turn and not {"role", "from"} & turn.keys()
