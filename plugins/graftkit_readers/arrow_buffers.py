"""Reads from Arrow's files and streams how large their buffers are unpacked, which pyarrow believes and makes room for.

A message says of its buffers where they lie; one that is packed begins with its size unpacked. What messages and a
file's end say is a flatbuffer: https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO, Any

from graftkit_readers.tables_in_file import AnotherTable, check_only_table

__all__ = ["unpacked_sizes"]

_MAGIC = b"ARROW1"
_BEGIN = b"ARROW1\0\0"
_MARK = b"\xff\xff\xff\xff"
"""Stands before a message's length in all but the oldest streams, and before the 0 at the end but of JavaScript's."""
_MOST_METADATA = 64 << 20
_DICTIONARY, _BATCH = 2, 3
_STEP = 1 << 20
_FARTHEST = 1 << 62


def unpacked_sizes(file: IO[bytes]) -> Iterator[int]:
    """Yields for each batch of a file, or of a stream, how many bytes its buffers take that are packed.

    Args:
        file: The file; one that is a stream is read from its beginning to its end, and need not be seekable.

    Raises:
        AnotherTable: More follows after its end, of which nothing would be read.
        ValueError: Something in it is damaged, or it ends before its end is marked.
        OSError: The file can't be read.
    """
    start = file.read(8)
    try:
        if start[: len(_MAGIC)] == _MAGIC:
            yield from _of_file(file)
        else:
            yield from _of_stream(_Forward(file, start))
    except struct.error:
        raise ValueError("it is cut short") from None


def _of_file(file: IO[bytes]) -> Iterator[int]:
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 10)
    length = struct.unpack("<i", file.read(10)[:4])[0]
    if not 0 < length <= min(size, _MOST_METADATA):
        raise ValueError("its end is not that of an Arrow file")
    footer = size - 10 - length
    file.seek(footer)
    end = _Table.root(file.read(length))
    read = 0
    for field in (2, 3):  # dictionaries, batches
        for at, metadata, _, body in struct.iter_unpack("<qiiq", end.structs(field, 24)):
            if not 0 <= at < size or not 0 <= metadata <= min(size, _MOST_METADATA):
                raise ValueError("a batch lies beyond the file")
            file.seek(at)
            data = file.read(metadata)
            prefix = 8 if data[:4] == _MARK else 4
            yield _unpacked(file, data[prefix:], at + metadata)
            read = max(read, at + metadata + body)
    check_only_table(file, read, footer, _MAGIC, _BEGIN)


def _of_stream(file: _Forward) -> Iterator[int]:
    """Reads message after message; before each stands its length, 0 at the end, mostly after a mark."""
    while True:
        start = file.at
        head = file.read(4)
        if not head:
            raise ValueError(f"it ends at byte {start:,} without the mark of a stream's end")
        length = struct.unpack("<i", file.read(4) if head == _MARK else head)[0]
        if not 0 <= length <= _MOST_METADATA:
            raise ValueError(f"at byte {start:,} stands neither a batch nor the mark of the stream's end")
        if not length:
            break
        data = file.read(length)
        at = file.at
        yield _unpacked(file, data, at)
        file.seek(at + max(0, min(_Table.root(data).number(3, "<q"), _FARTHEST)))
    end = file.at
    if file.read(1):
        raise AnotherTable(f"its stream ends at byte {end:,}, and more follows, which would not be read")


class _Forward:
    """A file that is read forward alone, seekable or not.

    Args:
        file: The file.
        begun: What has been read of it already, which is read again.

    Attributes:
        at: Where it stands.
    """

    def __init__(self, file: IO[bytes], begun: bytes) -> None:
        self._file, self._begun = file, begun
        self.at = 0

    def seek(self, place: int) -> None:
        """Passes over what lies before a place."""
        if place < self.at:
            raise ValueError("buffers overlap")
        while self.at < place and self.read(min(_STEP, place - self.at)):
            pass

    def read(self, count: int) -> bytes:
        """Reads some bytes."""
        data, self._begun = self._begun[:count], self._begun[count:]
        if len(data) < count:
            data += self._file.read(count - len(data))
        self.at += len(data)
        return data


def _unpacked(file: Any, metadata: bytes, body: int) -> int:
    """Returns what the packed buffers of a message take.

    Args:
        file: The file.
        metadata: What the message says.
        body: Where its buffers begin.
    """
    message = _Table.root(metadata)
    kind, batch = message.number(1, "<B"), message.table(2)
    if kind == _DICTIONARY and batch is not None:
        batch = batch.table(1)
    if kind not in (_DICTIONARY, _BATCH) or batch is None or batch.table(3) is None:
        return 0
    total = 0
    for at, length in sorted(struct.iter_unpack("<qq", batch.structs(2, 16))):
        if not 0 <= at < _FARTHEST or not 0 <= length < _FARTHEST:
            raise ValueError("a buffer lies beyond the file")
        if length >= 8:
            file.seek(body + at)
            size = struct.unpack("<q", file.read(8))[0]
            total += length if size == -1 else max(0, size)
    return total


class _Table:
    """A flatbuffer's table.

    Args:
        data: The flatbuffer.
        at: Where the table lies.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._unpack("<i", at)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """Returns the table that a flatbuffer is."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def _unpack(self, form: str, at: int) -> int:
        if at < 0:
            raise ValueError("it is damaged")
        number: int = struct.unpack_from(form, self._data, at)[0]
        return number

    def _place(self, field: int) -> int | None:
        known = self._unpack("<H", self._fields)
        at = 4 + 2 * field
        offset = self._unpack("<H", self._fields + at) if at + 2 <= known else 0
        return self._at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Returns a number; 0 where it is not said."""
        place = self._place(field)
        return 0 if place is None else self._unpack(form, place)

    def table(self, field: int) -> _Table | None:
        """Returns a table in this one, or None."""
        place = self._place(field)
        return None if place is None else _Table(self._data, place + self._unpack("<I", place))

    def structs(self, field: int, size: int) -> bytes:
        """Returns the bytes of a vector of structs."""
        place = self._place(field)
        if place is None:
            return b""
        start = place + self._unpack("<I", place)
        count = self._unpack("<I", start)
        found = self._data[start + 4 : start + 4 + count * size]
        if len(found) != count * size:
            raise ValueError("it is cut short")
        return found
