"""What reads records out of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from graftkit.interfaces.record_source import Record, RecordSource

__all__ = ["Reader"]


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
