"""Reads from a Parquet file how large its pages are unpacked, which pyarrow believes and makes room for.

The file's end says where each column's pages lie, and each page begins with a header; both are Thrift's compact
protocol: https://parquet.apache.org/docs/file-format/.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from graftkit_readers.tables_in_file import check_only_table

__all__ = ["MoreThanTablesHave", "Page", "pages"]

_MAGIC = b"PAR1"
_MOST_METADATA = 4 << 20
_METADATA_SHARE = 16
"""A file's end may take 4 MiB, and a sixteenth of the file besides: reading a megabyte of it takes half a second."""
_MOST_PAGES = 50_000
_BYTES_A_PAGE = 1 << 10
"""A file may have 50,000 pages, and one for each KiB of it besides."""
_HEADERS = (256, 64 << 10, 16 << 20)
"""Bytes in which a page's header is looked for, one after the other."""
_DEEPEST = 32
_FARTHEST = 1 << 62

_Wanted = Mapping[int, Any]
"""The numbers of a struct's fields that are read -> those of the struct, or the structs, in it; None for a number."""

_COLUMNS: _Wanted = {4: {1: {3: {5: None, 7: None, 9: None, 11: None}, 4: None, 5: None, 6: None, 7: None}}}
"""Of the file's metadata, for each group of rows and each column in it: the number of values, the bytes of its pages,
where the first one of values lies, and where that of a dictionary does; then place and length of both its indexes."""

_PAGE: _Wanted = {2: None, 3: None, 5: {1: None}, 7: {1: None}, 8: {1: None}}
"""Of a page's header: its bytes unpacked and packed, and how many values it has: of either version, or a dictionary."""


class MoreThanTablesHave(ValueError):
    """A file is whole, yet has far more of something than tables have."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        size: Its bytes when it is unpacked.
        values: How many values it has.
        is_dictionary: Whether these are what other pages of the column number.
    """

    size: int
    values: int
    is_dictionary: bool


def pages(file: IO[bytes], most_columns: int) -> Iterator[Page]:
    """Yields the pages that pyarrow reads of a Parquet file.

    Args:
        file: The file.
        most_columns: How many columns it may have, those within objects and lists among them.

    Raises:
        MoreThanTablesHave: It has very many columns or pages.
        AnotherTable: Another file stands before it in the same one.
        ValueError: Something in it is damaged.
        OSError: The file can't be read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    length, magic = struct.unpack("<I4s", _exactly(file, 8))
    if magic != _MAGIC or length > size - 8:
        raise ValueError("its end is not that of a Parquet file")
    if length > _MOST_METADATA + size // _METADATA_SHARE:
        raise MoreThanTablesHave(f"what it says of its columns takes {length:,} bytes of {size:,}")
    footer = size - 8 - length
    file.seek(footer)
    read = 0
    left = _MOST_PAGES + size // _BYTES_A_PAGE
    for group in _structs(_Compact(_exactly(file, length)).struct(_COLUMNS).get(4)):
        columns = _structs(group.get(1))
        if len(columns) > most_columns:
            raise MoreThanTablesHave(f"it has {len(columns):,} columns, more than the {most_columns:,} that are read")
        for chunk in columns:
            read = max([read, *(chunk.get(place, 0) + chunk.get(place + 1, 0) for place in (4, 6))])
            for end, page in _pages_of(file, chunk.get(3)):
                read = max(read, end)
                left -= 1
                if left < 0:
                    raise MoreThanTablesHave(f"it has more than {_MOST_PAGES + size // _BYTES_A_PAGE:,} pages")
                yield page
    check_only_table(file, read, footer, _MAGIC, _MAGIC)


def _pages_of(file: IO[bytes], column: Any) -> Iterator[tuple[int, Page]]:
    """Yields the pages of a column, and where each ends."""
    if not isinstance(column, dict) or not {5, 7, 9} <= column.keys():
        raise ValueError("a column's pages are not said")
    first = column.get(11, 0)
    at = min(column[9], first) if first > 0 else column[9]
    end, left = at + column[7], column[5]
    while left > 0 and at < end:
        if not 0 <= at < _FARTHEST:
            raise ValueError("a column's pages lie beyond the file")
        length, packed, page = _page(file, at)
        left -= 0 if page.is_dictionary else page.values
        at += length + packed
        yield at, page


def _page(file: IO[bytes], at: int) -> tuple[int, int, Page]:
    """Returns the length of a page's header, the bytes of the page that follow, and the page."""
    for most in _HEADERS:
        file.seek(at)
        reader = _Compact(file.read(most))
        try:
            found = reader.struct(_PAGE)
            break
        except ValueError:
            if most == _HEADERS[-1]:
                raise
    counted = next((found[key] for key in (5, 7, 8) if isinstance(found.get(key), dict)), {1: 0})
    numbers = [found.get(2, -1), found.get(3, -1), counted.get(1, -1)]
    if min(numbers) < 0:
        raise ValueError("a page's header is damaged")
    unpacked, packed, values = numbers
    return reader.position, packed, Page(unpacked, values, 7 in found)


def _structs(value: Any) -> list[dict[int, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("it is cut short")
    return data


class _Compact:
    """Thrift's compact protocol.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, wanted: _Wanted, depth: int = 0) -> dict[int, Any]:
        """Returns the fields of a struct that are wanted, those that are numbers or structs, or lists of structs.

        Raises:
            ValueError: It is damaged, cut short or nested too deeply.
        """
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            value = self._value(head & 15, wanted.get(field) or {}, depth)
            if field in wanted and isinstance(value, dict | list if wanted[field] else int):
                found[field] = value
        return found

    def _value(self, kind: int, wanted: _Wanted, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (1, 2):  # a boolean, which the field's head is
            return None
        if kind == 8:  # a text
            self._pass(self._unsigned())
            return None
        if kind == 12:
            return self.struct(wanted, depth + 1)
        if kind in (9, 10):
            return self._list(wanted, depth)
        if kind == 3:
            return self._byte()
        if kind in (7, 13):  # a number of eight bytes, sixteen bytes
            self._pass(8 if kind == 7 else 16)
            return None
        if kind == 11:
            return self._map(depth)
        raise ValueError(f"a value of the kind {kind}")

    def _list(self, wanted: _Wanted, depth: int) -> list[Any] | None:
        head = self._byte()
        count, kind = head >> 4, head & 15
        count = self._unsigned() if count == 15 else count
        self._check(count)
        if kind in (1, 2, 3):
            self._pass(count)
            return None
        items = (self._value(kind, wanted, depth + 1) for _ in range(count))
        if kind == 12 and wanted:
            return list(items)
        for _ in items:
            pass
        return None

    def _map(self, depth: int) -> None:
        count = self._unsigned()
        self._check(count)
        kinds = self._byte() if count else 0
        for _ in range(count):
            for kind in (kinds >> 4, kinds & 15):
                self._value(3 if kind in (1, 2) else kind, {}, depth + 1)

    def _byte(self) -> int:
        place = self.position
        if place >= len(self._data):
            raise ValueError("it is cut short")
        self.position = place + 1
        return self._data[place]

    def _unsigned(self) -> int:
        number = self._byte()
        if number < 128:
            return number
        number &= 127
        for shift in range(7, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number of over ten bytes")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)

    def _pass(self, count: int) -> None:
        self._check(count)
        self.position += count

    def _check(self, count: int) -> None:
        if count > len(self._data) - self.position:
            raise ValueError("it is cut short")
