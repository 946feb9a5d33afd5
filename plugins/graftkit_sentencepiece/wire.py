"""Reads and writes the protobuf wire format, as far as a `.model` uses it.

A message is a sequence of fields; each is a varint `number << 3 | type` and a value. The format is described at
https://protobuf.dev/programming-guides/encoding/. Reading it here keeps a base's bytes
unchanged, and takes one pass whatever the bytes are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["BYTES", "FLOAT", "VARINT", "WireError", "fields", "write_bytes", "write_float", "write_varint"]

VARINT, FIXED64, BYTES, FLOAT = 0, 1, 2, 5
"""The wire types: a varint, eight bytes, a length and as many bytes, four bytes."""

_LONGEST_VARINT = 10
_FIXED = {FIXED64: 8, FLOAT: 4}


class WireError(ValueError):
    """The bytes are no protobuf message."""


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Yields the fields of a message without copying their values.

    Args:
        data: The bytes that hold the message.
        start: Where it starts.
        end: Where it ends; the bytes' end if None.

    Yields:
        `(number, wire type, value, 0)` for a varint, `(number, wire type, start, end)` for any other value.

    Raises:
        WireError: The bytes are no message.
    """
    place, end = start, len(data) if end is None else end
    while place < end:
        key, place = _varint(data, place, end)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(data, place, end)
            yield number, kind, value, 0
            continue
        if kind == BYTES:
            size, place = _varint(data, place, end)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise WireError(f"byte {place} starts a field of the unknown type {kind}")
        if not number or size > end - place:
            raise WireError(f"a field at byte {place} does not fit")
        yield number, kind, place, place + size
        place += size


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Returns a varint's value and the place after it."""
    if place < end and data[place] < 128:
        return data[place], place + 1
    value = 0
    for index in range(min(_LONGEST_VARINT, end - place)):
        byte = data[place + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, place + index + 1
    raise WireError(f"the number at byte {place} does not end")


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def write_varint(number: int, value: int) -> bytes:
    """Returns a field with an integer or a boolean.

    Example:
        >>> write_varint(3, 300).hex()
        '18ac02'
    """
    return _number(number << 3 | VARINT) + _number(value)


def write_float(number: int, value: float) -> bytes:
    """Returns a field with a float32."""
    return _number(number << 3 | FLOAT) + struct.pack("<f", value)


def write_bytes(number: int, value: bytes) -> bytes:
    """Returns a field with bytes: a string, or another message."""
    return _number(number << 3 | BYTES) + _number(len(value)) + value
