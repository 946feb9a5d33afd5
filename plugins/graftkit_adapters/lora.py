"""Low-rank adaptation: a frozen weight plus the product of two thin matrices.

Hu et al., LoRA, 2021 (https://arxiv.org/abs/2106.09685): `y = W x + (alpha / rank) B A x`. `A` starts uniform in
`±1/sqrt(in)`, `B` at zero, so that training starts from the model as it was. On quantized weights it is QLoRA.

rsLoRA (Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732) scales by `alpha / sqrt(rank)`. LoRA+ (Hayou et al.,
2024, https://arxiv.org/abs/2402.12354) trains `B` with a higher rate than `A`. Ranks and alphas of single layers follow
PEFT's `rank_pattern` and `alpha_pattern`. DoRA is in `graftkit_adapters.dora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from graftkit import AdaptedWeight, Layer
from torch import nn
from torch.nn.functional import dropout, linear

from graftkit_adapters.config import LoraConfig

__all__ = ["MAGNITUDE", "Lora", "LoraWeight"]

MAGNITUDE = "lora_magnitude_vector"
"""What DoRA's magnitudes are called, here and in PEFT's files."""


class Lora:
    """Puts LoRA on weights."""

    def __init__(self, config: LoraConfig | None = None) -> None:
        self._config = config or LoraConfig()

    def attach(self, layer: Layer) -> LoraWeight:
        """Adapts one layer; the result starts by computing what its weight alone computes."""
        if self._config.dora:
            from graftkit_adapters.dora import DoraWeight

            return DoraWeight(layer, self._config)
        return LoraWeight(layer, self._config)

    def peft_config(self) -> Mapping[str, Any]:
        """Returns the method's fields of adapter_config.json."""
        return {
            "peft_type": "LORA",
            "r": self._config.rank,
            "lora_alpha": self._config.alpha,
            "lora_dropout": self._config.dropout,
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": self._config.rslora,
            "use_dora": self._config.dora,
            "init_lora_weights": True,
            "rank_pattern": dict(self._config.rank_pattern),
            "alpha_pattern": dict(self._config.alpha_pattern),
            "modules_to_save": None,
        }

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """Returns `lora_A.weight [rank, in]` and `lora_B.weight [out, rank]`, and DoRA's magnitudes `[out]`."""
        return {name if name == MAGNITUDE else f"{name}.weight": t for name, t in adapted.adapter_state().items()}

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Returns `lora_A`, `lora_B` and, of DoRA, `lora_magnitude_vector`."""
        return {key.removesuffix(".weight"): tensor for key, tensor in tensors.items()}


class LoraWeight(AdaptedWeight):
    """A frozen weight with a low-rank update.

    Attributes:
        lora_A: `[rank, in]`, float32.
        lora_B: `[out, rank]`, float32.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        super().__init__(layer)
        info, rank = layer.info, config.rank_of(layer.info)
        device = next(layer.weight.parameters()).device
        start = torch.empty(rank, info.in_features)
        start.uniform_(-1 / sqrt(info.in_features), 1 / sqrt(info.in_features), generator=layer.generator)
        self.lora_A = nn.Parameter(start.to(device))
        self.lora_B = nn.Parameter(torch.zeros(info.out_features, rank, device=device))
        self._scale = config.scale_of(info)
        self._dropout = config.dropout
        self._rate_of_b = config.lora_plus_ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`, in the type of what comes in; parameters and their steps stay float32."""
        y: torch.Tensor = self.frozen(x)
        return y + self._update(dropout(x, self._dropout, self.training))

    def _update(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `B A x`, scaled."""
        return linear(linear(x, self.lora_A.to(x.dtype)), (self.lora_B * self._scale).to(x.dtype))

    def delta(self) -> torch.Tensor:
        """Returns `B A`, scaled, `[out, in]`."""
        return (self.lora_B.detach() @ self.lora_A.detach()) * self._scale

    def rate_scales(self) -> Mapping[str, float]:
        """Returns LoRA+'s ratio for `B`."""
        return {"lora_B": self._rate_of_b}
