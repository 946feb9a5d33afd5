"""The quantizers' own recipe fields."""

from __future__ import annotations

from math import ceil
from typing import Literal, get_args

from graftkit import LayerInfo, ProviderConfig
from pydantic import Field

__all__ = ["NESTED_BLOCK", "SIZES", "DenseConfig", "Int8Config", "Nf4Config", "StoredConfig"]

NESTED_BLOCK = 256
"""Scales that share one scale under double quantization."""


BlockSize = Literal[32, 64, 128, 256, 512, 1024, 2048, 4096]
SIZES: tuple[int, ...] = get_args(BlockSize)
"""The sizes of a block of NF4 that bitsandbytes computes with."""


class DenseConfig(ProviderConfig):
    """Weights as they are."""

    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int:
        """Returns the bytes of the weight itself."""
        return layer.out_features * layer.in_features * itemsize


class Int8Config(ProviderConfig):
    """A byte a weight and a scale a row."""

    products: Literal["float", "int8"] = Field(
        default="float",
        description="what frozen layers multiply in training, on a CPU: `int8` rounds inputs and gradients to 8 bits, "
        "a scale a token, and multiplies whole numbers, where the CPU adds them up exactly (VNNI); evaluation, answers "
        "and proofs always take `float`",
    )

    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int:
        """Returns the bytes of codes and of float32 scales."""
        return layer.out_features * (layer.in_features + 4)


class Nf4Config(ProviderConfig):
    """How NF4 stores a weight."""

    blocksize: BlockSize = Field(default=64, description="weights that share one scale")
    double_quant: bool = Field(
        default=False, description="store the scales in 8 bits too: 0.37 bits a weight less at a block of 64"
    )

    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int:
        """Returns the bytes of codes, two a byte in whole blocks a row, and of scales."""
        blocks = layer.out_features * ceil(layer.in_features / self.blocksize)
        scales = blocks + 4 * (ceil(blocks / NESTED_BLOCK) + 1) if self.double_quant else 4 * blocks
        return blocks * self.blocksize // 2 + scales


class StoredConfig(ProviderConfig):
    """Weights as the file holds them."""

    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int:
        """Returns the bytes of the weight in the file, or of the weight itself where it can't be taken over."""
        return layer.out_features * layer.in_features * itemsize if layer.file_bytes is None else layer.file_bytes
