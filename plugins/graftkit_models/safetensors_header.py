"""Reads and checks a safetensors header without loading a tensor, and without torch.

The format: eight bytes of length, little-endian, a JSON header, then the tensors' bytes without a gap
(https://github.com/huggingface/safetensors). The caps are tighter than the library's own: a header of 100 MB is
one that it accepts, and one that takes minutes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.bounded_json import parse_json

__all__ = ["StoredTensor", "read_header"]

MAX_HEADER = 16 << 20
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's shape, type and place in its file.

    Attributes:
        shape: Its dimensions.
        dtype: Its type as the format names it: "F32", "BF16", ...
        start: The first byte, counted from the file's beginning.
        end: The byte after the last.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int
    end: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Returns name -> shape, type and place of every tensor.

    Raises:
        ModelError: The file is missing, truncated or malformed.
    """
    try:
        if path.exists() and not path.is_file():
            raise _broken(path, "this is no regular file")
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if length == 0 or length > MAX_HEADER or 8 + length > size:
                raise _broken(path, "its header's length is impossible: truncated, or no safetensors file")
            raw = file.read(length)
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", where=str(path)) from error
    return _places(path, _parse(path, raw), 8 + length, size)


def _parse(path: Path, raw: bytes) -> Mapping[str, Any]:
    try:
        header = parse_json(raw, object_pairs_hook=_unique)
    except ValueError as error:
        raise _broken(path, f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _broken(path, f"it names {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in it twice")
    return result


def _places(path: Path, header: Mapping[str, Any], data: int, size: int) -> dict[str, StoredTensor]:
    tensors = {name: _place(path, name, entry, data) for name, entry in header.items()}
    end = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise _broken(path, f"tensor '{name}' does not follow the one before it")
        end = tensor.end
    if end > size:
        raise _broken(path, f"it is truncated: {size:,} bytes, where its header promises {end:,}")
    if end < size:
        raise _broken(path, f"{size - end:,} bytes follow its last tensor")
    return tensors


def _place(path: Path, name: str, entry: Any, data: int) -> StoredTensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = len(shape) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, start, end))
        bits = _BITS[dtype]
    except (KeyError, TypeError, ValueError):
        whole, bits = False, 0
    if not whole:
        raise _broken(path, f"its entry for tensor '{name}' is malformed")
    if prod(shape) * bits != (end - start) * 8:
        raise _broken(path, f"tensor '{name}': shape {list(shape)} of {dtype} does not take {end - start} bytes")
    return StoredTensor(shape, dtype, data + start, data + end)


def _broken(path: Path, what: str) -> ModelError:
    return ModelError(what, where=str(path), hint="Download or copy the file again.")
