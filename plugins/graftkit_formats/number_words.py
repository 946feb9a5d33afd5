"""What formats have in common whose records may have numbers that stand for words, as labels and tags do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Self

from graftkit.errors import DataError, NothingToLearn

from graftkit_formats.text_columns import AS_TEXT

__all__ = ["NumberWords"]

_SHOWN = 6
_NO_LABEL = -1
"""What `datasets` writes where there is no label."""


class NumberWords:
    """Has the words for numbers: the recipe's, else those that a file keeps.

    Args:
        names: What the recipe says, from 0 on; nothing where it says none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._kept: Mapping[str, Sequence[str]] = {}

    def with_names(self, names: Mapping[str, Sequence[str]]) -> Self:
        """Returns the same with the words that a file keeps, by the column."""
        made = copy(self)
        made._kept = names
        return made

    def words(self, column: str) -> Sequence[str]:
        """Returns the words for the numbers of a column; nothing where they are not known."""
        return self._names or self._kept.get(column, ())

    def told_words(self, column: str, value: object) -> str:
        """Tells which words a file's numbers stand for, where the file says so and the recipe does not.

        Args:
            column: The column.
            value: What a record has in it.
        """
        first = next(iter(value), None) if isinstance(value, list) else value
        words = self._kept.get(column, ())
        if self._names or not words or type(first) is not int:
            return ""
        shown = ", ".join(f"{word:.40}" for word in words[:_SHOWN])
        more = f" and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
        return f"the numbers of '{column}' stand for the words that the file keeps: {shown}{more}"

    def word_of(
        self, number: int, column: str, where: str, use: str, otherwise: str = "", *, one: str = "label"
    ) -> str:
        """Returns the word for a label, or a tag, that is a number.

        Args:
            number: The number.
            column: Its column.
            where: File and line.
            use: The format.
            otherwise: What else may be meant.
            one: What it is called.

        Raises:
            NothingToLearn: It is -1, which stands for none where others stand for words.
            DataError: There is none.
        """
        words = self.words(column)
        if 0 <= number < len(words):
            return words[number]
        if words and number == _NO_LABEL:
            raise NothingToLearn(f"the {one} is the number -1, which stands for no {one}", where=where)
        if words:
            by = "'names' has" if self._names else "the file keeps"
            numbers = f"0 to {len(words) - 1}" if len(words) > 1 else "0 alone"
            raise DataError(
                f"the {one} is the number {number}, and {by} a word for {numbers}",
                where=where,
                hint="Name the others, too, or leave such records out.",
            )
        alone = f" {AS_TEXT}" if one == "label" else ""  # words are no text
        raise DataError(
            f"the {one} is the number {number}, for which there is no word",
            where=where,
            hint=f"Give the words: format: {{use: {use}, names: [FIRST, SECOND]}}{otherwise}.{alone}",
        )
