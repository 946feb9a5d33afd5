"""What reads records out of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from graftkit.interfaces.record_source import Record, RecordSource

__all__ = ["NamesNumbers", "Reader"]


class Reader(Protocol):
    """Reads records out of files of one form. Built from its own config model: `Class(config)`, or `Class()`.

    A reader knows nothing of what the records mean: that is a `RecordFormat`'s.
    """

    def accepts(self, source: RecordSource) -> bool:
        """Tells from the file's suffix and its first bytes whether this reader reads it."""

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields the records in the file's order, holding a bounded part of the file in memory.

        A text that is too large to hold may be given as the source itself in place of a string: see
        `graftkit.interfaces.samples.LongText`.

        Raises:
            DataError: The file can't be read or is malformed; with the place.
        """


@runtime_checkable
class NamesNumbers(Protocol):
    """A reader of files that may say which words their numbers stand for, as tables of labels do."""

    def names(self, source: RecordSource) -> Mapping[str, Sequence[str]]:
        """Returns the words for whole numbers from 0 on, by the column that has them, alone or in lists.

        Raises:
            DataError: As for `records`.
        """
