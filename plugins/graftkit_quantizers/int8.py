"""8-bit integers with one scale a row, computed by bitsandbytes.

The weights' half of LLM.int8() (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339): activations stay in
floating point, so the only error is the rounding of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from graftkit import FrozenWeight, check_matrix, check_tensors
from torch import nn

from graftkit_quantizers.backend import bnb

__all__ = ["Int8", "Int8Weight"]


class Int8:
    """Stores weights in int8."""

    def quantize(self, weight: torch.Tensor) -> Int8Weight:
        """Stores `[out, in]`.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
        check_matrix(weight)
        codes, absmax, _ = bnb.int8_vectorwise_quant(weight.float())
        return Int8Weight(codes, absmax.float())


class Int8Weight(FrozenWeight):
    """A weight in int8.

    Attributes:
        codes: int8 `[out, in]`.
        absmax: The largest magnitude of each row, float32 `[out]`.
    """

    error_bound = 0.5 / 127 + 1e-6

    def __init__(self, codes: torch.Tensor, absmax: torch.Tensor) -> None:
        super().__init__(*codes.shape)
        self.codes = nn.Parameter(codes.detach(), requires_grad=False)
        self.absmax = nn.Parameter(absmax.detach(), requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns `[out, in]`."""
        weight: torch.Tensor = bnb.int8_vectorwise_dequant(self.codes.detach(), self.absmax.detach())
        return weight.to(dtype)

    def meta(self) -> dict[str, Any]:
        """Nothing is needed beside the tensors."""
        return {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        codes = tensors.get("codes", torch.empty(0, 0))
        rows, columns = codes.shape if codes.ndim == 2 else (0, 0)
        check_tensors(tensors, {"codes": (torch.int8, (rows, columns)), "absmax": (torch.float32, (rows,))})
        return cls(tensors["codes"], tensors["absmax"])
