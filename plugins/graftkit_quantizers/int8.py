"""8-bit integers with one scale a row, the same as bitsandbytes' `int8_vectorwise_quant` stores.

The weights' half of LLM.int8() (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339): activations stay in
floating point, so the only error is the rounding of the weights, unless the recipe asks for products of whole numbers.
bitsandbytes itself takes nothing but float16 on CUDA, where a weight beyond 65,504 would be infinite.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

import torch
from graftkit import FrozenWeight, LayerInfo, StoredWeight, check_matrix, check_tensors
from torch import nn

from graftkit_quantizers import int8_products
from graftkit_quantizers.config import Int8Config
from graftkit_quantizers.kinds import BITSANDBYTES_INT8

__all__ = ["Int8", "Int8Weight", "stored_int8"]


class Int8:
    """Stores weights in int8."""

    def __init__(self, config: Int8Config | None = None) -> None:
        self._rounds_products, self._told = config is not None and config.products == "int8", False
        if self._rounds_products and not int8_products.sums_are_exact():
            warnings.warn(
                "products: int8 has no effect: this processor does not add such products up exactly (it lacks VNNI)",
                stacklevel=2,
            )

    def _look_at(self, device: torch.device) -> None:
        """Tells once where products of whole numbers are asked for and the device has none."""
        if self._rounds_products and device.type not in ("cpu", "meta") and not self._told:
            self._told = True
            warnings.warn(f"products: int8 has no effect: it is for CPUs, and this is {device.type}", stacklevel=3)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Int8Weight:
        """Stores `[out, in]`.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
        check_matrix(weight)
        self._look_at(weight.device)
        exact = weight.float()
        absmax = exact.abs().amax(1)
        scale = 127.0 / torch.where(absmax > 0, absmax, 1.0)
        codes = (exact * scale.unsqueeze(1)).round().to(torch.int8)
        return Int8Weight(codes, absmax, rounds_products=self._rounds_products)

    def adopt(self, stored: StoredWeight, layer: LayerInfo) -> Int8Weight | None:
        """Takes over what bitsandbytes stored in int8, bit for bit.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        found = stored_int8(stored)
        if found is not None:
            self._look_at(found.codes.device)
            found.rounds_products = self._rounds_products
        return found


def stored_int8(stored: StoredWeight) -> Int8Weight | None:
    """Returns the weight that a file of bitsandbytes holds, or None where it is of another kind.

    Raises:
        ValueError: A tensor is missing, left over, or of another shape or type.
    """
    return Int8Weight.from_state(stored.tensors, stored.meta) if stored.kind == BITSANDBYTES_INT8 else None


class Int8Weight(FrozenWeight):
    """A weight in int8.

    Args:
        codes: int8 `[out, in]`.
        absmax: The largest magnitude of each row, float32 `[out]`.
        rounds_products: Whether inputs and gradients are rounded to 8 bits in training, on a CPU.

    Attributes:
        codes: int8 `[out, in]`.
        absmax: The largest magnitude of each row, float32 `[out]`.
    """

    error_bound = 0.5 / 127 + 1e-6

    def __init__(self, codes: torch.Tensor, absmax: torch.Tensor, *, rounds_products: bool = False) -> None:
        super().__init__(*codes.shape)
        self.rounds_products = rounds_products
        self.codes = nn.Parameter(codes.detach(), requires_grad=False)
        self.absmax = nn.Parameter(absmax.detach(), requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns `[out, in]`."""
        return (self.codes.detach() * self.absmax.detach().unsqueeze(1) * (1 / 127)).to(dtype)

    def matmul(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x W^T`: `[..., in]` to `[..., out]`."""
        if not self._rounds(x, self.in_features):
            return super().matmul(x)
        return int8_products.product(x, self.codes.detach(), self._scale)

    def matmul_transposed(self, grad: torch.Tensor) -> torch.Tensor:
        """Returns `grad W`: `[..., out]` to `[..., in]`."""
        if not self._rounds(grad, self.out_features):
            return super().matmul_transposed(grad)
        return int8_products.product_transposed(grad, self.codes.detach(), self._scale)

    def _rounds(self, x: torch.Tensor, summed: int) -> bool:
        """Tells whether a product is one of whole numbers, of which so many are added up."""
        if not (self.rounds_products and self.training) or x.device.type != "cpu":
            return False
        return summed <= int8_products.MOST_SUMMED and int8_products.sums_are_exact()

    @property
    def _scale(self) -> torch.Tensor:
        return self.absmax.detach() / 127

    def meta(self) -> dict[str, Any]:
        """Returns how products are computed, where that is otherwise than usual."""
        return {"products": "int8"} if self.rounds_products else {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        codes = tensors.get("codes", torch.empty(0, 0))
        rows, columns = codes.shape if codes.ndim == 2 else (0, 0)
        check_tensors(tensors, {"codes": (torch.int8, (rows, columns)), "absmax": (torch.float32, (rows,))})
        return cls(tensors["codes"], tensors["absmax"], rounds_products=meta.get("products") == "int8")
