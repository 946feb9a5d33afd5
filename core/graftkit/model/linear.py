"""A linear layer whose weight is frozen, and may be adapted."""

from __future__ import annotations

import torch
from torch import nn

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo

__all__ = ["FrozenLinear"]


class FrozenLinear(nn.Module):
    """Computes `x W^T + b` with a frozen weight, or with an adapted one once there is one.

    Attributes:
        core: The weight.
        info: Its path, kind and sizes.
        bias: `[out]`, frozen, or None.
    """

    def __init__(self, core: FrozenWeight | AdaptedWeight, info: LayerInfo, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.core = core
        self.info = info
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`."""
        y: torch.Tensor = self.core(x)
        return y if self.bias is None else y + self.bias

    @property
    def transposed(self) -> bool:
        """Whether the architecture itself stores the weight as `[in, out]`, as GPT-2 does."""
        return self.info.transposed

    @property
    def frozen(self) -> FrozenWeight:
        """The frozen weight below whatever is on it."""
        return self.core.frozen if isinstance(self.core, AdaptedWeight) else self.core
