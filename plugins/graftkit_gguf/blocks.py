"""Dequantizes the blocks of GGUF with torch, on any device, bit for bit as the gguf package does with numpy.

A block is what `ggml-common.h` of the ggml project calls `block_q4_0` and so on: one or two scales in float16, and the
integers that they scale, packed. A block of a K type has 256 values in groups of 16 or 32, each with a scale of its
own, a small integer, which the block's float16 scales. Every product and sum is rounded to float32 by itself and in
ggml's order, never fused, so that all devices and both implementations agree in every bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from graftkit_gguf.tensor_types import GGML_TYPES, GgmlType

__all__ = ["BLOCKS", "block_steps", "dequantize_blocks"]

BLOCKS: dict[str, GgmlType] = {}
"""The block types that are dequantized here, by name."""

_PIECE = {"cpu": 1 << 16}
"""Values that are dequantized at a time: on a CPU, as many as stay in its caches."""
_LARGE_PIECE = 1 << 24

_Unpack = Callable[[torch.Tensor, torch.Tensor], None]
_UNPACK: dict[str, _Unpack] = {}


def dequantize_blocks(type_: str, blocks: torch.Tensor, out: torch.Tensor) -> None:
    """Writes the values of blocks.

    Args:
        type_: One of `BLOCKS`.
        blocks: uint8, contiguous, its number of bytes a multiple of the type's block.
        out: As many values, contiguous, of any floating point type, on the same device: each is computed in float32 and
            rounded to that type.
    """
    kind, unpack = BLOCKS[type_], _UNPACK[type_]
    stored, values = blocks.view(-1, kind.nbytes), out.view(-1, kind.block)
    step = max(1, _PIECE.get(blocks.device.type, _LARGE_PIECE) // kind.block)
    exact = None
    if out.dtype != torch.float32:
        exact = torch.empty(min(step, len(values)), kind.block, device=out.device)
    for start in range(0, len(values), step):
        part, target = stored[start : start + step], values[start : start + step]
        if exact is None:
            unpack(part, target)
        else:
            unpack(part, exact[: len(part)])
            target.copy_(exact[: len(part)])


_LEVELS: dict[str, tuple[int, int, int, int]] = {
    "Q4_0": (2, 2, 18, 0x11),
    "Q4_1": (4, 4, 20, 0x11),
    "Q5_0": (2, 6, 22, 0x11),
    "Q5_1": (4, 8, 24, 0x11),
    "Q8_0": (2, 2, 34, 1),
    "Q4_K": (16, 16, 144, 0x11),
    "Q5_K": (16, 48, 176, 0x11),
    "Q6_K": (0, 0, 128, 0x11),
}
"""Where the bytes of levels begin in a block, where those of their lowest bits begin and end, and what each of these is
where every level is 1; Q6_K's upper bits follow on the lower ones."""


def block_steps(type_: str, blocks: torch.Tensor, out: torch.Tensor) -> None:
    """Writes by how much each value would change were its level one higher: values are linear in levels.

    Args:
        type_: One of `BLOCKS`.
        blocks: As for `dequantize_blocks`.
        out: As many numbers, float32, contiguous: 0 at least.
    """
    start, low, end, ones = _LEVELS[type_]
    kind = BLOCKS[type_]
    changed = blocks.reshape(-1, kind.nbytes).clone()
    changed[:, start : 192 if type_ == "Q6_K" else end] = 0
    lowest = torch.empty_like(out)
    dequantize_blocks(type_, changed, lowest)
    changed[:, low:end] = ones
    dequantize_blocks(type_, changed, out)
    out.sub_(lowest).abs_()


def _unpacks(name: str) -> Callable[[_Unpack], _Unpack]:
    """Enters a function that writes blocks `[n, bytes]` into float32 `[n, values]` under its type's name."""

    def enter(function: _Unpack) -> _Unpack:
        _UNPACK[name] = function
        BLOCKS[name] = next(kind for kind in GGML_TYPES.values() if kind.name == name)
        return function

    return enter


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """Returns the float16 at a byte of each block as float32, `[n, 1]`."""
    return blocks.view(torch.float16)[:, at // 2 : at // 2 + 1].float()


def _nibbles(packed: torch.Tensor, out: torch.Tensor) -> None:
    """Writes the low halves of bytes `[n, groups, size]`, then the high ones, into `[n, groups, 2, size]`."""
    out[:, :, 0].copy_(packed & 15)
    out[:, :, 1].copy_(packed >> 4)


def _shifts(count: int, by: int, device: torch.device) -> torch.Tensor:
    return torch.arange(0, count * by, by, dtype=torch.uint8, device=device)


@_unpacks("Q4_0")
def _q4_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, None, 2:], out.view(-1, 1, 2, 16))
    out.sub_(8).mul_(_half(blocks, 0))


@_unpacks("Q4_1")
def _q4_1(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _nibbles(blocks[:, None, 4:], out.view(-1, 1, 2, 16))
    out.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _five_bits(low: torch.Tensor, high: torch.Tensor, out: torch.Tensor) -> None:
    """Writes 32 numbers a block, four bits of each in `[n, 16]`, the fifth of each in `[n, 4]`."""
    fifth = (high[:, :, None] >> _shifts(8, 1, high.device) & 1) << 4
    _nibbles(low[:, None], out.view(-1, 1, 2, 16))
    out.add_(fifth.view(-1, 32))


@_unpacks("Q5_0")
def _q5_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _five_bits(blocks[:, 6:], blocks[:, 2:6], out)
    out.sub_(16).mul_(_half(blocks, 0))


@_unpacks("Q5_1")
def _q5_1(blocks: torch.Tensor, out: torch.Tensor) -> None:
    _five_bits(blocks[:, 8:], blocks[:, 4:8], out)
    out.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


@_unpacks("Q8_0")
def _q8_0(blocks: torch.Tensor, out: torch.Tensor) -> None:
    torch.mul(blocks[:, 2:].view(torch.int8), _half(blocks, 0), out=out)


def _group_scales(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns scale and minimum, `[n, 8, 1]`, of the groups of a Q4_K or Q5_K block: six bits each in twelve bytes."""
    first, second, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, rest & 15 | first >> 2 & 48), 1)
    minima = torch.cat((second & 63, rest >> 4 | second >> 2 & 48), 1)
    return (_half(blocks, 0) * scales)[..., None], (_half(blocks, 2) * minima)[..., None]


@_unpacks("Q4_K")
def _q4_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    scales, minima = _group_scales(blocks)
    _nibbles(blocks[:, 16:].view(-1, 4, 32), out.view(-1, 4, 2, 32))
    out.view(-1, 8, 32).mul_(scales).sub_(minima)


@_unpacks("Q5_K")
def _q5_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    scales, minima = _group_scales(blocks)
    fifth = (blocks[:, None, 16:48] >> _shifts(8, 1, blocks.device)[:, None] & 1) << 4
    _nibbles(blocks[:, 48:].view(-1, 4, 32), out.view(-1, 4, 2, 32))
    out.view(-1, 8, 32).add_(fifth).mul_(scales).sub_(minima)


@_unpacks("Q6_K")
def _q6_k(blocks: torch.Tensor, out: torch.Tensor) -> None:
    upper = (blocks[:, 128:192].view(-1, 2, 1, 32) >> _shifts(4, 2, blocks.device)[:, None] & 3) << 4
    scales = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    _nibbles(blocks[:, :128].view(-1, 2, 64), out.view(-1, 2, 2, 64))
    out.view(-1, 2, 4, 32).add_(upper)
    out.sub_(32).view(-1, 16, 16).mul_(scales[..., None])
