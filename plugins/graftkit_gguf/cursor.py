"""Reads GGUF values from a buffer, in order, never past its end."""

from __future__ import annotations

import struct
from array import array
from mmap import mmap
from pathlib import Path
from typing import TypeAlias

from graftkit.errors import ModelError

__all__ = ["MetadataValue", "ValueCursor", "damaged"]

MetadataValue: TypeAlias = "bool | int | float | str | list[str] | array[int] | array[float]"
"""A metadata value; an array of numbers is an `array.array`, one of booleans holds 0 and 1."""

_MOST_ELEMENTS = 2_000_000
_SHOWN = 80
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = dict(enumerate(["B", "b", "H", "h", "I", "i", "f"])) | {_BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {number: struct.Struct(f"<{code}") for number, code in _NUMBERS.items()}


def damaged(path: Path, message: str) -> ModelError:
    """Returns the error for a malformed file."""
    return ModelError(message, where=str(path), hint="The file is incomplete or damaged: download it again.")


class ValueCursor:
    """A position in a GGUF header.

    Args:
        buffer: The file's bytes.
        end: How many of them may be read.
        path: The file, for the errors.
    """

    def __init__(self, buffer: mmap, end: int, path: Path) -> None:
        self._buffer = buffer
        self._end = end
        self._path = path
        self._elements = 0
        self.position = 0

    @property
    def remaining(self) -> int:
        """The number of bytes that remain."""
        return self._end - self.position

    def error(self, message: str, hint: str | None = None) -> ModelError:
        """Returns the error for an unusable header; the default hint says that the file is damaged."""
        if hint is None:
            return damaged(self._path, message)
        return ModelError(message, where=str(self._path), hint=hint)

    def take(self, count: int, what: str) -> bytes:
        """Returns the next bytes.

        Raises:
            ModelError: There are not so many.
        """
        start = self._advance(count, what)
        return self._buffer[start : start + count]

    def u32(self, what: str) -> int:
        """Returns the next unsigned 32-bit number."""
        number: int = _U32.unpack_from(self._buffer, self._advance(4, what))[0]
        return number

    def u64(self, what: str) -> int:
        """Returns the next unsigned 64-bit number."""
        number: int = _U64.unpack_from(self._buffer, self._advance(8, what))[0]
        return number

    def name(self, what: str, longest: int) -> str:
        """Returns the next string, which must be UTF-8 of 1 to `longest` bytes."""
        length = self.u64(what)
        if not 1 <= length <= longest:
            raise self.error(f"{what} is {length:,} bytes long, not 1 to {longest:,}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is no UTF-8: {error.object[:_SHOWN]!r}") from error

    def value(self, key: str) -> MetadataValue:
        """Returns the next typed value.

        Args:
            key: What it is called, for the errors.

        Raises:
            ModelError: An unknown type, an array of arrays or of too many elements, or a value that doesn't
                fit.
        """
        what = repr(key[:_SHOWN])
        type_ = self.u32(what)
        if type_ == _STRING:
            return self._string(what)
        if type_ == _ARRAY:
            return self._array(what)
        return self._scalar(type_, what)

    def _advance(self, count: int, what: str) -> int:
        start = self.position
        if count > self._end - start:
            raise self.error(f"{what} would end at byte {start + count:,}, {self._limit()}")
        self.position = start + count
        return start

    def _limit(self) -> str:
        if self._end == len(self._buffer):
            return f"but the file has {self._end:,} bytes"
        return f"but a header may take {self._end:,} bytes at most"

    def _string(self, what: str) -> str:
        return str(self.take(self.u64(what), what), "utf-8", "surrogateescape")

    def _scalar(self, type_: int, what: str) -> bool | int | float:
        layout = _SCALARS.get(type_)
        if layout is None:
            raise self.error(f"{what} is of the unknown type {type_}")
        value: int | float = layout.unpack_from(self._buffer, self._advance(layout.size, what))[0]
        if type_ != _BOOL:
            return value
        if value not in (0, 1):
            raise self.error(f"{what} is a boolean of the value {value}")
        return bool(value)

    def _array(self, what: str) -> list[str] | array[int] | array[float]:
        type_ = self.u32(what)
        count = self._element_count(what)
        if type_ == _STRING:
            return self._strings(count, what)
        if type_ == _ARRAY:
            raise self.error(f"{what} is an array of arrays, which is not supported", hint="")
        return self._numbers(type_, count, what)

    def _element_count(self, what: str) -> int:
        count = self.u64(what)
        if count > self.remaining:
            raise self.error(f"{what} claims {count:,} elements, more than fit into the header")
        self._elements += count
        if self._elements > _MOST_ELEMENTS:
            raise self.error(f"{what} takes the metadata's arrays to more than {_MOST_ELEMENTS:,} elements")
        return count

    def _numbers(self, type_: int, count: int, what: str) -> array[int] | array[float]:
        layout = _SCALARS.get(type_)
        if layout is None:
            raise self.error(f"{what} is an array of the unknown type {type_}")
        return array(_NUMBERS[type_], self.take(count * layout.size, what))

    def _strings(self, count: int, what: str) -> list[str]:
        """Reads many strings in one loop, without a call for each: a vocabulary has a hundred thousand."""
        buffer, end, position, length_at = self._buffer, self._end, self.position, _U64.unpack_from
        strings: list[str] = []
        for _ in range(count):
            if position + 8 > end:
                break
            start = position + 8
            position = start + length_at(buffer, position)[0]
            if position > end:
                break
            strings.append(str(buffer[start:position], "utf-8", "surrogateescape"))
        if len(strings) < count:
            raise self.error(f"{what}: its element {len(strings):,} of {count:,} doesn't fit into the header")
        self.position = position
        return strings
