"""Integers of 4 or 8 bits that lie in int32: taken apart, and put into bytes as `ScaledWeight` has them."""

from __future__ import annotations

import torch

__all__ = ["in_bytes", "unpacked"]


def unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Takes integers out of int32, those in the lowest bits first.

    Args:
        packed: int32 `[rows, words]`.
        bits: 4 or 8.

    Returns:
        uint8 `[rows, words * 32 / bits]`, each from 0 to `2 ** bits - 1`.

    Example:
        >>> unpacked(torch.tensor([[0x76543210]], dtype=torch.int32), 4)
        tensor([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=torch.uint8)
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    return ((packed[..., None] >> shifts) & ((1 << bits) - 1)).to(torch.uint8).flatten(-2)


def in_bytes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Puts codes `[rows, columns]`, uint8, into bytes: those of 4 bits in pairs, the first in the lower half."""
    if bits == 8:
        return codes.contiguous()
    pairs = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2))
    return pairs[:, 0::2] | pairs[:, 1::2] << 4
