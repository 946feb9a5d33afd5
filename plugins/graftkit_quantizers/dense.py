"""Weights as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from graftkit import LayerInfo, PlainWeight, check_matrix

from graftkit_quantizers.config import DenseConfig

__all__ = ["Dense", "DenseWeight"]


class Dense:
    """Stores a weight in the type that it comes in."""

    def __init__(self, config: DenseConfig | None = None) -> None: ...

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        """Keeps `[out, in]` as it is.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
        check_matrix(weight)
        return DenseWeight(weight)


class DenseWeight(PlainWeight):
    """An unquantized frozen weight, which shares its memory with no other."""

    error_bound = 0.0

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(weight.detach().clone())

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from its one tensor."""
        for tensor in tensors.values():
            check_matrix(tensor)
        return super().from_state(tensors, meta)
