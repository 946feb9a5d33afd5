"""BitFit: of a layer, its bias alone is trained.

Ben Zaken et al., BitFit, 2022 (https://arxiv.org/abs/2106.10199). What is trained is the difference from the frozen
bias, in float32, so that steps smaller than the bias's own rounding are kept; its gradient is the bias's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import AdaptedWeight, Layer
from torch import nn

from graftkit_adapters.config import BitFitConfig

__all__ = ["BitFit", "BitFitWeight"]


class BitFit:
    """Trains the biases of layers."""

    def __init__(self, config: BitFitConfig | None = None) -> None:
        self._config = config or BitFitConfig()

    def attach(self, layer: Layer) -> BitFitWeight:
        """Makes the layer's bias trainable.

        Raises:
            ValueError: It has none.
        """
        reason = self._config.refusal(layer.info)
        if reason:
            raise ValueError(f"the layer '{layer.info.path}' can't be adapted: {reason}")
        return BitFitWeight(layer)

    def peft_config(self) -> None:
        """PEFT has no form of biases without a method beside them."""

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """There is no form in PEFT."""
        raise NotImplementedError

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """There is no form in PEFT."""
        raise NotImplementedError


class BitFitWeight(AdaptedWeight):
    """A frozen weight whose layer's bias is trained.

    Attributes:
        bias_change: What is added to the frozen bias, `[out]`, float32; at first zeros.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        device = next(layer.weight.parameters()).device
        self.bias_change = nn.Parameter(torch.zeros(layer.info.out_features, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`; the layer adds the frozen bias."""
        y: torch.Tensor = self.frozen(x)
        return y + self.bias_change.to(x.dtype)

    def delta(self) -> torch.Tensor:
        """Returns zeros, `[out, in]`: the weight stays."""
        return self.bias_change.new_zeros(self.info.out_features, self.info.in_features)

    def bias_delta(self) -> torch.Tensor:
        """Returns what training has added to the bias, `[out]`."""
        return self.bias_change.detach()
