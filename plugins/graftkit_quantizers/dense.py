"""Weights as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from graftkit import FrozenWeight, LayerInfo, check_matrix
from torch import nn

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


class DenseWeight(FrozenWeight):
    """An unquantized frozen weight."""

    error_bound = 0.0

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(*weight.shape)
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the matrix, `[out, in]`."""
        return self.weight.detach().to(dtype)

    def meta(self) -> dict[str, Any]:
        """Nothing is needed beside the tensor."""
        return {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from its one tensor."""
        if tensors.keys() != {"weight"}:
            raise ValueError(f"stored tensors {sorted(tensors)} are not ['weight']")
        check_matrix(tensors["weight"])
        return cls(tensors["weight"])
