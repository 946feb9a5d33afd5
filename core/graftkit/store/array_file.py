"""Arrays in a safetensors file, written without holding them in memory and read back mapped into it.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from graftkit.errors import StorageError
from graftkit.interfaces.regular_file import open_regular
from graftkit.option_names import option
from graftkit.store.files import write_atomic

__all__ = ["STORED_TYPES", "map_arrays", "read_metadata", "write_arrays"]

STORED_TYPES: dict[np.dtype[Any], str] = {
    np.dtype("<i8"): "I64",
    np.dtype("<f8"): "F64",
    np.dtype("<f4"): "F32",
    np.dtype("<u4"): "U32",
    np.dtype("<i4"): "I32",
    np.dtype("u1"): "U8",
}
"""The types of numbers that are stored and their names in a file, in the order in which a file holds them."""

_TYPES = {name: dtype for dtype, name in STORED_TYPES.items()}
_MAX_HEADER = 16 << 20


def write_arrays(
    path: Path,
    arrays: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]],
    write: Callable[[str, IO[bytes]], object],
    metadata: Mapping[str, str],
) -> None:
    """Writes arrays of one or two dimensions as `write_atomic` does.

    Args:
        path: The file.
        arrays: Name, type and shape of each, those of larger items first, so that all lie aligned.
        write: Puts the bytes of the array of that name into the file.
        metadata: What else the header says.

    Raises:
        StorageError: The system refused.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, dtype, shape in arrays:
        start, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": STORED_TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def fill(file: IO[bytes]) -> None:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, _, _ in arrays:
            write(name, file)
        if file.tell() != 8 + len(text) + end:
            raise StorageError("what was written has another length than its header says", where=str(path))

    write_atomic(path, fill)


def map_arrays(
    path: Path, expected: Mapping[str, np.dtype[Any]], prefixes: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    """Maps a file's arrays into memory: the system reads what is looked at, when it is.

    Args:
        path: The file.
        expected: The type of each array that must be in it.
        prefixes: What the names of others begin with that may be in it, of any of `STORED_TYPES`.

    Raises:
        StorageError: The file can't be read, or is something else.
    """
    header, start = _header(path)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    others = {name: _type_of(path, entry) for name, entry in entries.items() if name.startswith(prefixes)}
    if entries.keys() - others.keys() != expected.keys():
        raise _damaged(path, f"it holds {', '.join(sorted(entries)) or 'nothing'}")
    types, room = others | dict(expected), path.stat().st_size - start
    return {name: _mapped(path, entry, types[name], start, room) for name, entry in entries.items()}


def _type_of(path: Path, entry: Any) -> np.dtype[Any]:
    try:
        return _TYPES[entry["dtype"]]
    except (KeyError, TypeError):
        raise _damaged(path, "it holds numbers of a type that is not stored") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Returns what a file's header says besides its arrays.

    Raises:
        StorageError: The file can't be read, or is something else.
    """
    metadata = _header(path)[0].get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is no object")
    return {str(key): str(value) for key, value in metadata.items()}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the header, and where the data begins."""
    try:
        with open_regular(path) as file:
            head = file.read(8)
            size = int.from_bytes(head, "little")
            if len(head) < 8 or size > _MAX_HEADER:
                raise _damaged(path, "it has no header")
            header = json.loads(file.read(size))
    except OSError as error:
        raise StorageError(f"can't be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no object")
    return header, 8 + size


def _mapped(path: Path, entry: Any, dtype: np.dtype[Any], start: int, room: int) -> NDArray[Any]:
    try:
        shape = tuple(entry["shape"])
        left, right = entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, left, right))
        if (
            not whole
            or len(shape) not in (1, 2)
            or entry["dtype"] != STORED_TYPES[dtype]
            or right - left != prod(shape) * dtype.itemsize
            or right > room
        ):
            raise ValueError
        if not prod(shape):  # nothing can't be mapped
            return np.zeros(shape, dtype)
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, "its header and its size do not fit together") from None
    return np.memmap(path, dtype, mode="r", offset=start + left, shape=shape)


def _damaged(path: Path, what: str) -> StorageError:
    return StorageError(
        f"the stored tokens are damaged: {what}", where=str(path), hint=f"Run again with {option('overwrite')}."
    )
