"""A frozen weight of small numbers, each multiplied by the scale of its block, as the file holds them.

Nearly every format that stores a weight in 4 or 8 bits is one of these: NF4 and FP4 of bitsandbytes (levels in a
table), FP8 in blocks of 128 x 128, MXFP4 (levels, and scales that are powers of two), the integers of GPTQ, AWQ and
compressed-tensors (a scale and a zero point a group). They differ in where blocks lie, and in what is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import torch
from graftkit import BufferedWeight, check_tensors
from torch import nn

__all__ = ["ScaledLayout", "ScaledWeight"]

_PIECE = {"cpu": 1 << 17}
"""Values that are dequantized at a time: on a CPU, as many as stay in its caches."""
_LARGE_PIECE = 1 << 24

_TYPES = {
    "uint4": torch.uint8,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "float8_e4m3fn": torch.float8_e4m3fn,
}
_SCALES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)


@dataclass(frozen=True, slots=True)
class ScaledLayout:
    """How the numbers of a matrix lie in its tensors. Each is `(code - zero) * scale * factor`, rounded.

    Attributes:
        shape: Of the matrix, `(out, in)`.
        grid: `(rows, columns)` in which blocks are counted: the shape, or as many numbers in other rows.
        block: Rows and columns of the grid that share a scale; the last ones may be fewer.
        codes: The type of a code. "uint4" has two a byte.
        levels: What each of the sixteen codes of 4 bits means; the number itself where left out.
        high_first: Whether the first of two codes in a byte is in its upper half.
        zero: What is subtracted from every code, where there is no zero point for each block.
        factor: What is multiplied last.
        rounded: The type that each number is rounded to, as the format's own programs do, before any other.
        nested_levels: Of scales that are codes of 8 bits, what each of those means.
        nested_block: How many such scales share a scale.
    """

    shape: tuple[int, int]
    grid: tuple[int, int]
    block: tuple[int, int]
    codes: str
    levels: tuple[float, ...] | None = None
    high_first: bool = False
    zero: int = 0
    factor: float = 1.0
    rounded: str = "float32"
    nested_levels: tuple[float, ...] | None = None
    nested_block: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Builds a layout from what `asdict` gave, lists in the place of tuples."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list | tuple) else v for key, v in data.items()}
        return cls(**values)

    @property
    def blocks(self) -> tuple[int, int]:
        """How many blocks there are, down and across."""
        (rows, columns), (height, width) = self.grid, self.block
        return -(-rows // height), -(-columns // width)

    @property
    def code_shape(self) -> tuple[int, int]:
        """The shape of the tensor of codes: rows of the grid, each in whole bytes."""
        rows, columns = self.grid
        return rows, -(-columns // 2) if self.codes == "uint4" else columns


class ScaledWeight(BufferedWeight):
    """A matrix of scaled codes; its values are the file's own, so that nothing is off.

    Attributes:
        codes: uint8, int8 or float8 `[rows, bytes of a row]`, in the layout's grid.
        scales: `layout.blocks`: floating point; uint8 for powers of two (E8M0: 127 is one), or for codes of scales.
        zeros: Zero points, uint8 or int8, as many; only where each block has its own.
        order: The column of `scales` that each column of the matrix belongs to, int32 `[in]`; only where they do not
            follow one another.
        nested_scales: Of scales that are codes, float32 `[scales / nested_block]`.
        nested_offset: And what is added to them, float32 `[1]`.
    """

    error_bound = 0.0
    codes: nn.Parameter
    scales: nn.Parameter
    zeros: nn.Parameter | None
    order: nn.Parameter | None
    nested_scales: nn.Parameter
    nested_offset: nn.Parameter

    def __init__(self, tensors: Mapping[str, torch.Tensor], layout: ScaledLayout) -> None:
        super().__init__(*layout.shape)
        self._layout = layout
        for name in ("zeros", "order"):
            self.register_parameter(name, None)
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().contiguous(), requires_grad=False))

    def dequantize_into(self, out: torch.Tensor) -> None:
        """Writes `[out, in]`."""
        rows, columns = self._layout.grid
        target, scales = out.view(rows, columns), self._scales()
        step = max(1, _PIECE.get(out.device.type, _LARGE_PIECE) // columns)
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            blocks = torch.arange(start, stop, device=out.device) // self._layout.block[0]
            values = self._numbers(self.codes.detach()[start:stop])
            if self.zeros is not None:
                self._by_block(values, self.zeros.detach()[blocks].float(), torch.Tensor.sub_)
            elif self._layout.zero:
                values -= self._layout.zero
            self._by_block(values, scales[blocks], torch.Tensor.mul_)
            if self._layout.factor != 1:
                values *= self._layout.factor
            target[start:stop].copy_(values.to(getattr(torch, self._layout.rounded)))

    def _numbers(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns what codes mean, float32 `[rows, columns]`: memory of its own."""
        if self._layout.codes != "uint4":
            return codes.to(torch.float32, copy=True)
        table = _pairs(self._layout.levels, self._layout.high_first, codes.device)
        pairs = nn.functional.embedding(codes.int(), table)
        return pairs.view(len(codes), -1)[:, : self._layout.grid[1]]

    def _by_block(self, values: torch.Tensor, of_blocks: torch.Tensor, operation: Any) -> None:
        """Applies an operation in place to numbers `[rows, columns]` and what their blocks have, `[rows, blocks]`."""
        columns = values.shape[1]
        width = min(self._layout.block[1], columns)  # a stranger's file may say any
        if self.order is not None:
            operation(values, of_blocks[:, self.order.detach()])
        elif columns % width == 0:
            operation(values.view(len(values), -1, width), of_blocks[..., None])
        else:
            operation(values, of_blocks.repeat_interleave(width, 1)[:, :columns])

    def _scales(self) -> torch.Tensor:
        """Returns the scales, float32 `[blocks down, blocks across]`."""
        scales = self.scales.detach()
        if scales.dtype != torch.uint8:
            return scales.float()
        if self._layout.nested_levels is None:
            return torch.ldexp(torch.ones_like(scales, dtype=torch.float32), scales.int() - 127)
        levels = _levels(self._layout.nested_levels, scales.device)
        width = min(self._layout.nested_block, scales.numel())  # a stranger's file may say any
        nested = self.nested_scales.detach().repeat_interleave(width)[: scales.numel()]
        return (levels[scales.view(-1).int()] * nested + self.nested_offset.detach()).view(scales.shape)

    def meta(self) -> dict[str, Any]:
        """Returns the layout."""
        return asdict(self._layout)

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()` and `meta()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        layout = ScaledLayout.from_json(meta)
        cls.check(tensors, layout)
        return cls(tensors, layout)

    @staticmethod
    def check(tensors: Mapping[str, torch.Tensor], layout: ScaledLayout) -> None:
        """Compares tensors with a layout.

        Raises:
            ValueError: As for `from_state`.
        """
        scales, zeros = tensors.get("scales"), tensors.get("zeros")
        nested = layout.nested_levels is not None
        allowed = (torch.uint8,) if nested else _SCALES
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "codes": (_TYPES[layout.codes], layout.code_shape),
            "scales": (scales.dtype if scales is not None and scales.dtype in allowed else allowed[0], layout.blocks),
        }
        if zeros is not None:
            own = torch.int8 if layout.codes == "int8" else torch.uint8
            expected["zeros"] = (own, layout.blocks)
        if "order" in tensors:
            expected["order"] = (torch.int32, (layout.grid[1],))
        if nested:
            down, across = layout.blocks
            expected["nested_scales"] = (torch.float32, (-(-down * across // layout.nested_block),))
            expected["nested_offset"] = (torch.float32, (1,))
        check_tensors(tensors, expected)


@cache
def _levels(levels: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Returns a table of numbers, once a device: dequantizing uploads nothing."""
    return torch.tensor(levels, dtype=torch.float32, device=device)


@cache
def _pairs(levels: tuple[float, ...] | None, high_first: bool, device: torch.device) -> torch.Tensor:
    """Returns the two numbers that each byte of codes means, float32 `[256, 2]`."""
    codes = torch.arange(256, device=device)
    both = torch.stack((codes >> 4, codes & 15) if high_first else (codes & 15, codes >> 4), 1)
    return both.float() if levels is None else _levels(levels, device)[both]
