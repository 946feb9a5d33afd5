"""Reads the weights of a GGUF file as float32 tensors.

A tensor is read and dequantized in chunks, straight into the result: `gguf.quants` makes several temporary
copies, which so stay in the processor's cache and don't grow with the tensor. The file is read rather than
mapped, since truncating a mapped file while it is read kills the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from graftkit.errors import ModelError

from graftkit_gguf.header import GgufHeader, GgufTensor
from graftkit_gguf.reading import StoredWeight

__all__ = ["half_split_rows", "read_weights"]

_CHUNK = 2**17


def read_weights(header: GgufHeader, weights: Mapping[str, StoredWeight]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields each weight by name, float32, in the shape and row order of `transformers`.

    Raises:
        ModelError: The file changed since its header was read, can't be read, or a weight is infinite or no
            number.
    """
    try:
        with header.path.open("rb") as file:
            _refuse_changed(header, file)
            for name, weight in weights.items():
                yield name, _weight(file, header.path, weight)
    except OSError as error:
        raise ModelError(f"the file can't be read: {error}", where=str(header.path)) from error


def _refuse_changed(header: GgufHeader, file: BufferedReader) -> None:
    stat = os.fstat(file.fileno())
    if (stat.st_size, stat.st_mtime_ns) != (header.size, header.modified):
        raise _changed(header.path)


def _changed(path: Path) -> ModelError:
    return ModelError("the file was changed after its header was read", where=str(path), hint="Start again.")


def _weight(file: BufferedReader, path: Path, weight: StoredWeight) -> torch.Tensor:
    parts = [_values(file, path, tensor) for tensor in weight.tensors]
    values = np.concatenate(parts, axis=-2) if len(parts) > 1 else parts[0].reshape(weight.shape)
    if weight.heads:
        values = half_split_rows(values, weight.heads)
    return torch.from_numpy(values - 1 if weight.plus_one else values)


def _values(file: BufferedReader, path: Path, tensor: GgufTensor) -> np.ndarray[Any, Any]:
    values = np.empty(tensor.shape[::-1], np.float32)
    _fill(values.reshape(-1), file, path, tensor)
    return values


def half_split_rows(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorders the rows of q or k for `transformers`, whose rotary embedding rotates halves, not neighbours.

    Args:
        weight: `[heads * head_dim, in]`, or a bias, a head's rows in the order 0, head_dim/2, 1, head_dim/2 + 1, ...
        heads: The number of heads whose rows these are.

    Returns:
        The same rows, a head's in the order 0, 1, 2, ...: a copy.
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _fill(values: np.ndarray[Any, Any], file: BufferedReader, path: Path, tensor: GgufTensor) -> None:
    """Dequantizes a tensor into `values`, `[elements]`."""
    type_ = tensor.type
    step = _CHUNK // type_.block * type_.block
    buffer = memoryview(bytearray(min(step, len(values)) // type_.block * type_.nbytes))
    file.seek(tensor.offset)
    for start in range(0, len(values), step):
        chunk = values[start : start + step]
        stored = buffer[: len(chunk) // type_.block * type_.nbytes]
        if file.readinto(stored) != len(stored):
            raise _changed(path)
        _dequantize(chunk, stored, type_.name)
        if not _is_finite(chunk):
            raise ModelError(
                f"the tensor {tensor.name!r} holds values that are infinite or no numbers", where=str(path)
            )


def _dequantize(chunk: np.ndarray[Any, Any], stored: memoryview, type_: str) -> None:
    with np.errstate(all="ignore"):  # what overflows is infinite then, and refused
        chunk[:] = dequantize(np.frombuffer(stored, np.uint8), GGMLQuantizationType[type_])


def _is_finite(chunk: np.ndarray[Any, Any]) -> bool:
    """Tells whether all values are finite; their sum is tried first, which is faster."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(chunk.sum())) or bool(np.isfinite(chunk).all())
