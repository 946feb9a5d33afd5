"""Reads and checks the header of a GGUF file: its metadata and where its tensors lie.

The format is specified in `docs/gguf.md` of the ggml project: magic, version, two counts, the metadata as
typed key-value pairs, one record a tensor, padding, and then the tensors' bytes, each at a multiple of the
alignment. Versions 2 and 3, little-endian.

Files are untrusted input: every length is compared with the file's size before it is used. Whatever the
bytes, reading takes one pass over at most `HEADER_LIMIT` of them, and either succeeds or raises `ModelError`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

from graftkit.errors import ModelError
from graftkit.interfaces.file_state import FileState

from graftkit_gguf.cursor import MetadataValue, ValueCursor, damaged
from graftkit_gguf.tensor_types import GGML_TYPES, GgmlType

__all__ = ["HEADER_LIMIT", "GgufHeader", "GgufTensor", "is_gguf", "read_header"]

_MAGIC = b"GGUF"
"""The first four bytes of every GGUF file."""

HEADER_LIMIT = 64 * 2**20
"""The most bytes that a header may take, metadata and tensor records together."""

_MOST_KEYS = 100_000
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 4
_MOST_VALUES = 2**48
_LONGEST_KEY = 65_535
_LONGEST_TENSOR_NAME = 64
_SHORTEST_KEY_RECORD = 13
_SHORTEST_TENSOR_RECORD = 32
_DEFAULT_ALIGNMENT = 32
_LARGEST_ALIGNMENT = 2**20


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies and how to read it.

    Attributes:
        name: As the file calls it.
        shape: As the file stores it: the dimension that is contiguous comes first.
        type: How its numbers are stored.
        offset: Its first byte, counted from the file's start.
        nbytes: How many bytes it takes.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself, checked.

    Attributes:
        path: The file.
        version: 2 or 3.
        metadata: Key -> value. Text that is no UTF-8 carries its stray bytes as lone surrogates.
        tensors: Name -> tensor, in the file's order; they don't overlap and all lie inside the file.
        state: What tells whether it is still that file: its size among it.
    """

    path: Path
    version: int
    metadata: Mapping[str, MetadataValue]
    tensors: Mapping[str, GgufTensor]
    state: FileState


def is_gguf(path: Path) -> bool:
    """Tells whether a file begins as a GGUF file does.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_header(path: Path) -> GgufHeader:
    """Reads the header of a GGUF file without touching its weights.

    Raises:
        ModelError: The file is missing, unreadable, no GGUF, of an unsupported version, truncated or
            malformed.
    """
    try:
        if not path.is_file():
            raise ModelError("there is no such file", where=str(path))
        with path.open("rb") as file:
            state = FileState.of(file.fileno())
            if state.size == 0:
                raise damaged(path, "the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
                cursor = ValueCursor(bytes_, min(len(bytes_), HEADER_LIMIT), path)
                return _parse(cursor, path, state)
    except (OSError, ValueError) as error:
        raise ModelError(f"the file can't be read: {error}", where=str(path)) from error


def _parse(cursor: ValueCursor, path: Path, state: FileState) -> GgufHeader:
    version = _version(cursor)
    tensor_count = _count(cursor, "tensors", _MOST_TENSORS, _SHORTEST_TENSOR_RECORD)
    key_count = _count(cursor, "metadata keys", _MOST_KEYS, _SHORTEST_KEY_RECORD)
    metadata = _metadata(cursor, key_count)
    alignment = _alignment(cursor, metadata)
    records = _tensors(cursor, tensor_count)
    start = -(-cursor.position // alignment) * alignment
    tensors = {name: _placed(cursor, tensor, start, alignment, state.size) for name, tensor in records.items()}
    _refuse_overlaps(cursor, tensors)
    return GgufHeader(path, version, metadata, tensors, state)


def _version(cursor: ValueCursor) -> int:
    if cursor.take(len(_MAGIC), "the magic number") != _MAGIC:
        raise cursor.error("this is no GGUF file: it doesn't start with 'GGUF'", hint="")
    version = cursor.u32("the version")
    if version in (2, 3):
        return version
    if version >= 2**16:
        raise cursor.error("this is a big-endian GGUF file", hint="Only little-endian files are supported.")
    raise cursor.error(
        f"GGUF version {version} is not supported", hint="Versions 2 and 3 are; convert the model again."
    )


def _count(cursor: ValueCursor, what: str, most: int, shortest: int) -> int:
    count = cursor.u64(f"the number of {what}")
    if count > most:
        raise cursor.error(f"it claims {count:,} {what}, more than the {most:,} that are allowed")
    if count * shortest > cursor.remaining:
        raise cursor.error(f"it claims {count:,} {what}, more than fit into the file")
    return count


def _metadata(cursor: ValueCursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.name("a metadata key", _LONGEST_KEY)
        if key in metadata:
            raise cursor.error(f"the metadata key {key[:80]!r} occurs twice")
        metadata[key] = cursor.value(key)
    return metadata


def _alignment(cursor: ValueCursor, metadata: Mapping[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= _LARGEST_ALIGNMENT:
        raise cursor.error(f"general.alignment is {alignment!r}, not between 1 and {_LARGEST_ALIGNMENT:,}")
    if alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment}, which is no power of two")
    return alignment


def _tensors(cursor: ValueCursor, count: int) -> dict[str, GgufTensor]:
    """Reads the records; their offsets still count from the start of the data."""
    tensors: dict[str, GgufTensor] = {}
    for _ in range(count):
        tensor = _tensor(cursor)
        if tensor.name in tensors:
            raise cursor.error(f"the tensor {tensor.name!r} occurs twice")
        tensors[tensor.name] = tensor
    return tensors


def _tensor(cursor: ValueCursor) -> GgufTensor:
    name = cursor.name("a tensor's name", _LONGEST_TENSOR_NAME)
    what = f"the tensor {name!r}"
    dimensions = cursor.u32(what)
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise cursor.error(f"{what} has {dimensions:,} dimensions, not 1 to {_MOST_DIMENSIONS}")
    shape = tuple(cursor.u64(what) for _ in range(dimensions))
    number = cursor.u32(what)
    if number not in GGML_TYPES:
        raise cursor.error(
            f"{what} is of the unknown type {number}",
            hint="The file is damaged, or of a format that is not known here: quantize the model to another, or give "
            "it as a Hugging Face folder.",
        )
    type_ = GGML_TYPES[number]
    return GgufTensor(name, shape, type_, cursor.u64(what), _nbytes(cursor, what, shape, type_))


def _nbytes(cursor: ValueCursor, what: str, shape: tuple[int, ...], type_: GgmlType) -> int:
    if min(shape) < 1 or prod(shape) > _MOST_VALUES:
        raise cursor.error(f"{what} has the impossible shape {list(shape)}")
    if shape[0] % type_.block:
        raise cursor.error(f"{what} has rows of {shape[0]}, no multiple of the {type_.block} of {type_.name}")
    return prod(shape) // type_.block * type_.nbytes


def _placed(cursor: ValueCursor, tensor: GgufTensor, start: int, alignment: int, size: int) -> GgufTensor:
    if tensor.offset % alignment:
        raise cursor.error(f"the tensor {tensor.name!r} is not aligned to {alignment} bytes")
    offset = start + tensor.offset
    if offset + tensor.nbytes > size:
        raise cursor.error(
            f"the tensor {tensor.name!r} ends at byte {offset + tensor.nbytes:,}, but the file has {size:,} bytes"
        )
    return GgufTensor(tensor.name, tensor.shape, tensor.type, offset, tensor.nbytes)


def _refuse_overlaps(cursor: ValueCursor, tensors: Mapping[str, GgufTensor]) -> None:
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.nbytes > after.offset:
            raise cursor.error(f"the tensors {before.name!r} and {after.name!r} overlap")
