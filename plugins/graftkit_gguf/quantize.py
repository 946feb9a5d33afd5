"""Quantizes to the blocks of GGUF: in torch, bit for bit as ggml and the gguf package do, and K types by ggml itself.

Source: `quantize_row_q4_0_ref` and its neighbours in `ggml-quants.c` of the ggml project. The blocks of K types come
of a search whose sums depend on the order in which a compiler adds: so ggml's own code does it, which the library
`xllamacpp` has beside llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from gguf import GGMLQuantizationType

from graftkit_gguf.tensor_types import GGML_TYPES, GgmlType

__all__ = ["GGML_TYPES_BY_NAME", "NEEDS_GGML", "ggml_is_there", "quantize_rows"]

GGML_TYPES_BY_NAME: dict[str, GgmlType] = {kind.name.lower(): kind for kind in GGML_TYPES.values()}
"""Each type by its name in lower case."""

NEEDS_GGML = frozenset({"q4_k", "q5_k", "q6_k"})
"""The types that ggml's own code quantizes to."""

_PIECE = 1 << 17
"""Values that a thread quantizes at a time: as many as stay in its caches."""

_WORTH_THREADS = 12
"""Pieces from which on starting threads takes less time than they save."""

_Pack = Callable[[torch.Tensor, torch.Tensor], None]
_PACK: dict[str, _Pack] = {}


def quantize_rows(values: torch.Tensor, type_: str) -> torch.Tensor:
    """Returns rows in a type of GGUF, uint8 `[rows, bytes of a row]`.

    Args:
        values: `[rows, width]`, on the CPU; the width is a multiple of the type's block.
        type_: The type in lower case: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, or one of `NEEDS_GGML`.

    Raises:
        RuntimeError: It needs ggml, which is not installed.
    """
    if type_ in _PLAIN:
        return values.to(_PLAIN[type_]).contiguous().view(torch.uint8)
    kind = GGML_TYPES_BY_NAME[type_]
    stored = torch.empty(len(values), values.shape[1] // kind.block * kind.nbytes, dtype=torch.uint8)
    write = _by_ggml(type_, values.shape[1]) if type_ in NEEDS_GGML else _by_torch(type_)
    step = max(1, _PIECE // values.shape[1])
    starts = range(0, len(values), step)
    one = partial(_write_piece, write, values, stored, step)
    if len(starts) < _WORTH_THREADS:
        for start in starts:
            one(start)
        return stored
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in threads.map(one, starts):
            pass
    return stored


def _write_piece(write: _Pack, values: torch.Tensor, stored: torch.Tensor, step: int, at: int) -> None:
    write(values[at : at + step].float().contiguous(), stored[at : at + step])


_PLAIN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def _by_torch(type_: str) -> _Pack:
    kind, pack = GGML_TYPES_BY_NAME[type_], _PACK[type_]
    return lambda values, stored: pack(values.reshape(-1, kind.block), stored.view(-1, kind.nbytes))


def _by_ggml(type_: str, width: int) -> _Pack:
    quantize, number = _ggml_quantize_chunk(), int(GGMLQuantizationType[type_.upper()])
    if quantize is None:
        raise RuntimeError(f"{type_} is quantized to by ggml, which comes with xllamacpp")

    def write(values: torch.Tensor, stored: torch.Tensor) -> None:
        quantize(number, values.data_ptr(), stored.data_ptr(), 0, len(values), width, None)

    return write


def ggml_is_there() -> bool:
    """Tells whether ggml's own code is installed, for the types that need it."""
    return _ggml_quantize_chunk() is not None


@cache
def _ggml_quantize_chunk() -> Any | None:
    """Returns ggml's function of this name, see `ggml.h`, or None where no library is installed that has it."""
    try:
        from xllamacpp import xllamacpp

        function = ctypes.CDLL(xllamacpp.__file__).ggml_quantize_chunk
    except (ImportError, OSError, AttributeError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    function.restype = ctypes.c_size_t
    return function


def _packs(name: str) -> Callable[[_Pack], _Pack]:
    """Enters a function that writes values `[n, 32]` into blocks `[n, bytes]` under its type's name."""

    def enter(function: _Pack) -> _Pack:
        _PACK[name] = function
        return function

    return enter


def _inverse(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _put_half(stored: torch.Tensor, at: int, value: torch.Tensor) -> None:
    """Writes a float16 `[n, 1]` at a byte of each block."""
    stored[:, at : at + 2] = value.half().view(torch.uint8)


def _around_zero(values: torch.Tensor, levels: int, stored: torch.Tensor) -> torch.Tensor:
    """Writes the scale that maps the value furthest from zero to the lowest level; returns the levels, uint8."""
    scale = _furthest(values) / -(levels // 2)
    _put_half(stored, 0, scale)
    return _levels((values * _inverse(scale)).add_(levels / 2 + 0.5), levels)


def _furthest(values: torch.Tensor) -> torch.Tensor:
    """Returns each row's value furthest from zero, `[n, 1]`, the first of two."""
    largest, least = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    found = torch.where(largest > -least, largest, least)
    tied = ((largest == -least) & (largest > 0)).squeeze(1).nonzero().squeeze(1)
    if len(tied):
        rows = values[tied]
        found[tied] = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return found


def _from_least(values: torch.Tensor, levels: int, stored: torch.Tensor) -> torch.Tensor:
    """Writes the scale that spreads the levels from the least value to the largest, and the least; returns levels."""
    largest, least = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    scale = (largest - least) / (levels - 1)
    _put_half(stored, 0, scale)
    _put_half(stored, 2, least)
    return _levels((values - least).mul_(_inverse(scale)).add_(0.5), levels)


def _levels(scaled: torch.Tensor, levels: int) -> torch.Tensor:
    """Cuts off what is behind the point, uint8."""
    return scaled.clamp_(0, levels - 1).to(torch.int8).view(torch.uint8)


def _put_nibbles(levels: torch.Tensor, stored: torch.Tensor) -> None:
    """Writes the lower four bits of the first sixteen levels beside those of the others."""
    torch.bitwise_or(levels[:, :16] & 15, levels[:, 16:] << 4, out=stored[:, -16:])


def _put_fifth_bits(levels: torch.Tensor, stored: torch.Tensor) -> None:
    """Writes the fifth bit of each of 32 levels into the four bytes before the last sixteen."""
    bits = (levels >> 4).view(-1, 4, 8) << torch.arange(8, dtype=torch.uint8)
    stored[:, -20:-16] = bits.sum(2, dtype=torch.uint8)


@_packs("q4_0")
def _q4_0(values: torch.Tensor, stored: torch.Tensor) -> None:
    _put_nibbles(_around_zero(values, 16, stored), stored)


@_packs("q4_1")
def _q4_1(values: torch.Tensor, stored: torch.Tensor) -> None:
    _put_nibbles(_from_least(values, 16, stored), stored)


@_packs("q5_0")
def _q5_0(values: torch.Tensor, stored: torch.Tensor) -> None:
    levels = _around_zero(values, 32, stored)
    _put_fifth_bits(levels, stored)
    _put_nibbles(levels, stored)


@_packs("q5_1")
def _q5_1(values: torch.Tensor, stored: torch.Tensor) -> None:
    levels = _from_least(values, 32, stored)
    _put_fifth_bits(levels, stored)
    _put_nibbles(levels, stored)


_BELOW_HALF = torch.tensor(0.5).nextafter(torch.tensor(0.0))
"""Added to a number below 2^22 and cut off behind the point, it rounds halves up, and nothing below them."""


@_packs("q8_0")
def _q8_0(values: torch.Tensor, stored: torch.Tensor) -> None:
    """Rounds halves away from zero, as C does and torch does not."""
    scale = values.abs().amax(1, keepdim=True) / 127
    _put_half(stored, 0, scale)
    scaled = values * _inverse(scale)
    scaled.add_(torch.copysign(_BELOW_HALF, scaled))
    stored[:, 2:].view(torch.int8).copy_(scaled)
