"""A frozen weight that stores nothing: its matrix is read, or computed again, whenever it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo

__all__ = ["MadeWeight"]


class MadeWeight(FrozenWeight):
    """A matrix that is made anew each time that it is used; its one parameter is empty, and says the device.

    Args:
        info: Its layer.
        make: Makes `[out, in]`, float32.
        device: Where it is made.
    """

    def __init__(self, info: LayerInfo, make: Callable[[], torch.Tensor], device: torch.device | None = None) -> None:
        super().__init__(info.out_features, info.in_features)
        self._make = make
        self.nothing = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Makes the matrix, `[out, in]`."""
        return self._make().to(dtype)

    def meta(self) -> dict[str, Any]:
        """There is nothing to store."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """There is nothing to make it of."""
        raise NotImplementedError
