"""The text of a record of which something is learnt as a whole, or the two texts of a pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from graftkit import Column
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of
from graftkit.interfaces.samples import MOST_SCORE, Pair, join_pair

from graftkit_formats.turns import string_of

__all__ = ["AS_TEXT", "listed", "number_of", "text_columns", "text_of"]

AS_TEXT = "To learn the texts alone: format: text."

_PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"))
"""What data sets call the columns of pairs, besides `text` and `text_pair`."""


def text_columns(found: Mapping[str, Column]) -> Sequence[str]:
    """Returns the columns that hold a text, or the two of a pair; none where there is neither."""
    names = _names(found)
    return names if all(name in found and found[name].is_text for name in names) else ()


def text_of(record: Mapping[str, Any], where: str) -> tuple[str, Pair | None]:
    """Returns the text of a record, and the two texts that it is made of where the record has a pair.

    Raises:
        DataError: A text is missing or no text.
        NothingToLearn: It is blank.
    """
    texts = [_learnt(string_of(record, name, where), name, where) for name in _names(record)]
    if len(texts) == 1:
        return texts[0], None
    first, second = texts
    return join_pair(first, second), (first, second)


def _names(found: Collection[str]) -> tuple[str, ...]:
    """Returns the columns that are read of those that there are: `text`, a pair of it, or one of other names."""
    if "text" in found:
        return ("text", "text_pair") if "text_pair" in found else ("text",)
    alone = ("content",) if "content" in found else ("text",)
    return next((pair for pair in _PAIRS if all(name in found for name in pair)), alone)


def _learnt(text: str, name: str, where: str) -> str:
    """Returns a text that there is something in.

    Raises:
        NothingToLearn: There is nothing.
    """
    if not text.strip():
        raise NothingToLearn(f'"{name}" is empty: there is nothing to learn', where=where)
    return text


def listed(value: object, key: str) -> str:
    """Returns a hint where a list is written as text, as tables have it; "" else.

    Args:
        value: The value, where a list is due.
        key: Its column.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return ""
    return f"Where the file is a csv, say which columns hold lists: reader: {{use: csv, lists: [{key}]}}. "


def number_of(value: object, key: str, where: str) -> float:
    """Returns a record's number.

    Raises:
        DataError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        told = "missing or null" if value is None else f"{kind_of(value)}, no number"
        hint = "Where numbers are written as text: format: {use: score, as_text: true}. " if type(value) is str else ""
        raise DataError(f'"{key}" is {told}', where=where, hint=f"{hint}{AS_TEXT}")
    if not abs(value) <= MOST_SCORE:
        raise DataError(f'"{key}" is {value!r:.40}, no number from -{MOST_SCORE:g} to {MOST_SCORE:g}', where=where)
    return float(value)
