"""A frozen weight in the blocks of a GGUF file, as they lie there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from graftkit import BufferedWeight, check_tensors
from torch import nn

from graftkit_gguf.blocks import BLOCKS, dequantize_blocks

__all__ = ["BlockWeight"]


class BlockWeight(BufferedWeight):
    """A matrix in blocks; its values are the file's own, so that nothing is off.

    Attributes:
        blocks: uint8 `[out, bytes of a row]`.
    """

    error_bound = 0.0

    def __init__(self, type_: str, blocks: torch.Tensor) -> None:
        kind = BLOCKS[type_]
        super().__init__(len(blocks), blocks.shape[1] // kind.nbytes * kind.block)
        self._type = type_
        self.blocks = nn.Parameter(blocks.detach().contiguous(), requires_grad=False)

    def dequantize_into(self, out: torch.Tensor) -> None:
        """Writes `[out, in]`."""
        dequantize_blocks(self._type, self.blocks.detach(), out)

    def meta(self) -> dict[str, Any]:
        """Returns the blocks' type, as ggml calls it, and the width."""
        return {"type": self._type, "in_features": self.in_features}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()` and `meta()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type, or the type of block is unknown.
        """
        kind = BLOCKS.get(str(meta["type"]))
        if kind is None:
            raise ValueError(f"blocks of the type {meta['type']!r} are not known")
        rows = tensors["blocks"].shape[0] if "blocks" in tensors and tensors["blocks"].ndim else 0
        width = int(meta["in_features"]) // kind.block * kind.nbytes
        check_tensors(tensors, {"blocks": (torch.uint8, (rows, width))})
        return cls(kind.name, tensors["blocks"])
