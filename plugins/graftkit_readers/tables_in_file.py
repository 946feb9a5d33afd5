"""Tells a file that holds one table from several that were put into one file, of which one alone would be read."""

from __future__ import annotations

from typing import IO

__all__ = ["AnotherTable", "check_only_table"]

_STEP = 1 << 20


class AnotherTable(ValueError):
    """A file holds more than the table that is read."""


def check_only_table(file: IO[bytes], start: int, end: int, last: bytes, first: bytes) -> None:
    """Makes sure that no other table ends, and this one begins, between what is read of a file and its last part.

    The last part of a table names its parts by their places in the file. In a file that was appended to another one
    these may be parts of the other.

    Args:
        file: The file.
        start: Where the last of the parts that are read ends.
        end: Where the part begins that names them.
        last: The bytes that every table ends with.
        first: Those that it begins with.

    Raises:
        AnotherTable: It does.
        OSError: The file can't be read.
    """
    boundary = last + first
    file.seek(start)
    kept = b""
    while start < end and (part := file.read(min(_STEP, end - start))):
        place = (kept + part).find(boundary)
        if place >= 0:
            second = start - len(kept) + place + len(last)
            raise AnotherTable(f"a second table begins at byte {second:,}, and one alone would be read")
        start += len(part)
        kept = (kept + part)[1 - len(boundary) :]
