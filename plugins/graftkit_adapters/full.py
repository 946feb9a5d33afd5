"""Full fine-tuning of layers: a trained matrix in the frozen one's place.

The matrix is float32, as masters of mixed precision are; products are computed in the type of what comes in. The frozen
weight stays beside it, unused in training: exports tell by it what was learnt, and `enabled = False` computes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import AdaptedWeight, Layer
from torch import nn
from torch.nn.functional import linear

from graftkit_adapters.config import FullConfig

__all__ = ["Full", "FullWeight"]


class Full:
    """Trains whole weights."""

    def __init__(self, config: FullConfig | None = None) -> None: ...

    def attach(self, layer: Layer) -> FullWeight:
        """Puts a trained copy of the weight in its place."""
        return FullWeight(layer)

    def peft_config(self) -> None:
        """PEFT has no form of it: what was learnt has every rank."""

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """There is no form in PEFT."""
        raise NotImplementedError

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """There is no form in PEFT."""
        raise NotImplementedError


class FullWeight(AdaptedWeight):
    """A weight that is trained as a whole.

    Attributes:
        weight: `[out, in]`, float32; at first the frozen weight, dequantized.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.weight = nn.Parameter(layer.weight.dequantize().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`, in the type of what comes in; the parameter and its steps stay float32."""
        return linear(x, self.weight.to(x.dtype))

    def delta(self) -> torch.Tensor:
        """Returns what training has changed, `[out, in]`."""
        return self.weight.detach() - self.frozen.dequantize()
