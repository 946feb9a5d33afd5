"""Reads the weights of a GGUF file: plain ones in their own type, those in blocks as they lie.

The file is read rather than mapped, since truncating a mapped file while it is read kills the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from graftkit import StoredWeight
from graftkit.errors import ModelError
from graftkit.interfaces.file_state import changed_file

from graftkit_gguf.block_weight import BlockWeight
from graftkit_gguf.blocks import BLOCKS, block_steps, dequantize_blocks
from graftkit_gguf.header import GgufHeader, GgufTensor
from graftkit_gguf.reading import StoredWeight as FileWeight

__all__ = ["half_split_rows", "read_bytes", "read_numbers", "read_steps", "read_weights"]

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CHUNK = 2**17
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def read_weights(
    header: GgufHeader, weights: Mapping[str, FileWeight]
) -> Iterator[tuple[str, torch.Tensor | StoredWeight]]:
    """Yields each weight by name, in the shape and row order of `transformers`.

    One of single numbers is in the file's own type, a matrix in blocks is a `StoredWeight` whose kind is the name that
    ggml gives the blocks, such as "Q4_1".

    Raises:
        ModelError: The file changed since its header was read, can't be read, or a weight of single numbers is infinite
            or no number.
    """
    try:
        with _opened(header) as file:
            for name, weight in weights.items():
                yield name, _weight(file, header.path, weight)
    except OSError as error:
        raise ModelError(f"the file can't be read: {error}", where=str(header.path)) from error


@contextmanager
def _opened(header: GgufHeader) -> Iterator[BufferedReader]:
    """Opens the file, which must be the one whose header was read, and must still be when it has been read."""
    with header.path.open("rb") as file:
        header.state.check(header.path, file.fileno())
        yield file
        header.state.check(header.path, file.fileno())


def _weight(file: BufferedReader, path: Path, weight: FileWeight) -> torch.Tensor | StoredWeight:
    first, *others = weight.tensors
    if first.type.name not in _PLAIN and len(weight.shape) == 2 and not others:
        return _stored(first.type.name, torch.from_numpy(_rows(file, path, first, weight.heads)), weight.shape)
    if weight.by_matrix:
        return _stored_stack(file, path, weight)
    parts = [_values(file, path, tensor, weight.heads) for tensor in weight.tensors]
    values = torch.cat(parts, dim=-2) if others else parts[0].view(weight.shape)
    return values - 1 if weight.plus_one else values


def _values(file: BufferedReader, path: Path, tensor: GgufTensor, heads: int) -> torch.Tensor:
    """Reads a tensor as numbers: plain ones in their own type, the rest in float32."""
    rows, shape, kind = _rows(file, path, tensor, heads), tensor.shape[::-1], tensor.type.name
    if kind in _PLAIN:
        values = torch.from_numpy(rows).view(_PLAIN[kind]).view(shape)
    else:
        values = _dequantized(kind, rows, shape)
    _refuse_infinite(values, path, tensor)
    return values


_STEPS = {"F16": 2.0**-10, "BF16": 2.0**-7}
"""How far apart numbers are at most, as a share of them."""
_LEAST_HALF = 2.0**-24
"""How far apart the smallest float16 are, which a scale is one of."""


def read_steps(header: GgufHeader, weight: FileWeight) -> torch.Tensor | None:
    """Returns how far the neighbouring level of each number is away, in the order of `transformers`, float32.

    Returns:
        The steps in the weight's shape, what the rounding of their scales adds among them; None where its numbers are
        float32, or of a type that nothing is quantized to here.

    Raises:
        ModelError: The file changed.
    """
    kind = weight.tensors[0].type.name
    if kind not in BLOCKS and kind not in _STEPS:
        return None
    with _opened(header) as file:
        parts = [_steps(file, header.path, tensor, weight.heads) for tensor in weight.tensors]
    return torch.cat(parts, dim=-2).view(weight.shape) if len(parts) > 1 else parts[0].view(weight.shape)


def _steps(file: BufferedReader, path: Path, tensor: GgufTensor, heads: int) -> torch.Tensor:
    kind, values = tensor.type.name, _values(file, path, tensor, heads).float().abs_()
    if kind in _STEPS:
        return values.mul_(_STEPS[kind]).add_(_LEAST_HALF)
    steps = torch.empty(tensor.shape[::-1])
    block_steps(kind, torch.from_numpy(_rows(file, path, tensor, heads)), steps)
    levels = values.div_(steps.clamp(min=_LEAST_HALF))
    return steps.add_(levels.mul_(_LEAST_HALF))


def _rows(file: BufferedReader, path: Path, tensor: GgufTensor, heads: int) -> _Bytes:
    """Reads a tensor's bytes, a row of it each, in the order of `transformers`: a row is whole blocks."""
    count = prod(tensor.shape[1:]) if heads == 0 or len(tensor.shape) > 1 else tensor.shape[0]
    stored = np.empty((count, tensor.nbytes // count), np.uint8)
    file.seek(tensor.offset)
    if file.readinto(stored.data.cast("B")) != stored.nbytes:
        raise changed_file(path)
    return half_split_rows(stored, heads) if heads else stored


def half_split_rows(weight: _Bytes, heads: int) -> _Bytes:
    """Reorders the rows of q or k for `transformers`, whose rotary embedding rotates halves, not neighbours.

    Args:
        weight: `[heads * head_dim, bytes]`, a head's rows in the order 0, head_dim/2, 1, head_dim/2 + 1, ...
        heads: The number of heads whose rows these are.

    Returns:
        The same rows, a head's in the order 0, 1, 2, ...: a copy.
    """
    pairs = weight.reshape(heads, len(weight) // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _refuse_infinite(values: torch.Tensor, path: Path, tensor: GgufTensor) -> None:
    if not torch.isfinite(values).all():
        raise ModelError(f"the tensor {tensor.name!r} holds values that are infinite or no numbers", where=str(path))


def _stored(kind: str, blocks: torch.Tensor, shape: tuple[int, ...]) -> StoredWeight:
    return StoredWeight(
        kind,
        shape,
        {"blocks": blocks},
        {},
        dequantize=partial(_dequantized, kind, blocks.numpy(), shape),
        freeze=partial(BlockWeight, kind, blocks) if kind in BLOCKS else None,
    )


def _stored_stack(file: BufferedReader, path: Path, weight: FileWeight) -> StoredWeight:
    """Reads a stack of matrices, those of each made of as many tensors' rows."""
    kind, shape = weight.dtype, weight.shape
    parts = [_rows(file, path, tensor, weight.heads) for tensor in weight.tensors]
    blocks = torch.cat([torch.from_numpy(rows).view(shape[0], -1, rows.shape[1]) for rows in parts], 1)
    rows = blocks.view(-1, blocks.shape[2]).numpy()
    return StoredWeight(
        kind,
        shape,
        {"blocks": blocks},
        {},
        dequantize=partial(_dequantized, kind, rows, shape),
        matrix=lambda number: _stored(kind, blocks[number], shape[1:]),
    )


def _dequantized(kind: str, blocks: _Bytes, shape: tuple[int, ...]) -> torch.Tensor:
    """Returns the values, float32."""
    out = torch.empty(shape)
    rows = out.view(len(blocks), -1)
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        _dequantize(kind, blocks[start : start + step], rows[start : start + step])
    return out


def _dequantize(kind: str, blocks: _Bytes, out: torch.Tensor) -> None:
    """Writes the values of whole blocks, float32; those of types that are rare through the gguf package."""
    if kind in _PLAIN:
        out.copy_(torch.from_numpy(blocks).view(_PLAIN[kind]).view(out.shape))
    elif kind in BLOCKS:
        dequantize_blocks(kind, torch.from_numpy(blocks), out)
    else:
        with np.errstate(all="ignore"):  # what overflows is infinite then, and refused
            out.numpy()[:] = dequantize(blocks, GGMLQuantizationType[kind]).reshape(out.shape)


def read_numbers(header: GgufHeader, tensor: GgufTensor) -> Iterator[torch.Tensor]:
    """Yields a tensor's numbers in the order of the file, float32, as many at a time whatever its type.

    Raises:
        ModelError: The file changed since its header was read, or ends early.
    """
    count = tensor.nbytes // tensor.type.nbytes
    step = _CHUNK // tensor.type.block
    with _opened(header) as file:
        file.seek(tensor.offset)
        for start in range(0, count, step):
            stored = np.empty((min(step, count - start), tensor.type.nbytes), np.uint8)
            if file.readinto(stored.data.cast("B")) != stored.nbytes:
                raise changed_file(header.path)
            values = torch.empty(len(stored), tensor.type.block)
            _dequantize(tensor.type.name, stored, values)
            yield values.view(-1)


def read_bytes(header: GgufHeader, tensor: GgufTensor) -> _Bytes:
    """Returns a tensor's bytes as they lie in the file.

    Raises:
        ModelError: The file changed since its header was read, or ends early.
    """
    with _opened(header) as file:
        return _rows(file, header.path, tensor, 0).reshape(-1)
