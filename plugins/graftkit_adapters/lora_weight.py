"""Layers adapted by LoRA: a frozen weight plus the product of two thin matrices.

The method, and its papers, are in `graftkit_adapters.lora`; DoRA's layers in `graftkit_adapters.dora`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import AdaptedWeight, EmbeddingWeight, Layer
from torch import nn
from torch.nn.functional import dropout, linear

from graftkit_adapters.config import LoraConfig
from graftkit_adapters.starts import start_of

__all__ = ["MAGNITUDE", "LoraEmbedding", "LoraWeight"]

MAGNITUDE = "lora_magnitude_vector"
"""What DoRA's magnitudes are called, here and in PEFT's files."""


class LoraWeight(AdaptedWeight):
    """A frozen weight with a low-rank update.

    Attributes:
        lora_A: `[rank, in]`, float32.
        lora_B: `[out, rank]`, float32.
        start_A: What `lora_A` was at first, where that is taken off, else None.
        start_B: What `lora_B` was at first, likewise.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        super().__init__(layer)
        rank, self._scale = config.rank_of(layer.info), config.scale_of(layer.info)
        a, b = start_of(config.init, layer, rank, self._scale)
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        taken = config.start_is_taken_off
        self.start_A = nn.Parameter(a.clone(), requires_grad=False) if taken else None
        self.start_B = nn.Parameter(b.clone(), requires_grad=False) if taken else None
        if config.init == "qpissa":
            self.replace_frozen(layer.requantize(layer.original() - self._scale * (b @ a)))
        self._dropout = config.dropout
        self._rate_of_b = config.lora_plus_ratio

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`, in the type of what comes in; parameters and their steps stay float32."""
        return self._rest(x) + self._update(dropout(x, self._dropout, self.training))

    def _rest(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is not trained of the product: that of the frozen weight, less a start that is taken off."""
        y: torch.Tensor = self.frozen(x)
        return y if self.start_A is None else y - self._product(x, self.start_A, self.start_B)

    def _update(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `B A x`, scaled."""
        return self._product(x, self.lora_A, self.lora_B)

    def _product(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        assert b is not None
        return linear(linear(x, a.to(x.dtype)), (b * self._scale).to(x.dtype))

    def delta(self) -> torch.Tensor:
        """Returns `B A`, scaled, less a start that is taken off, `[out, in]`."""
        a, b = self._factors()
        return (b.detach() @ a.detach()) * self._scale

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `A` and `B` of all that is added to the frozen weight; their rank is twice with such a start."""
        if self.start_A is None or self.start_B is None:
            return self.lora_A, self.lora_B
        return torch.cat([self.lora_A, self.start_A]), torch.cat([self.lora_B, -self.start_B], dim=1)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Returns what is trained, and a start that is taken off."""
        return super().adapter_state() | self._start()

    def load_adapter_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes over tensors that `adapter_state` gave.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape; nothing is changed then.
        """
        start = self._start()
        for name, own in start.items():
            if name not in tensors or tensors[name].shape != own.shape:
                found = list(tensors[name].shape) if name in tensors else "none"
                raise ValueError(f"adapter tensor {name!r} is {list(own.shape)}; the state's is {found}")
        super().load_adapter_state({name: tensor for name, tensor in tensors.items() if name not in start})
        with torch.no_grad():
            for name, own in start.items():
                own.copy_(tensors[name])

    def _start(self) -> dict[str, torch.Tensor]:
        found = {"start_A": self.start_A, "start_B": self.start_B}
        return {name: tensor.detach() for name, tensor in found.items() if tensor is not None}

    def rate_scales(self) -> Mapping[str, float]:
        """Returns LoRA+'s ratio for `B`."""
        return {"lora_B": self._rate_of_b}


class LoraEmbedding(LoraWeight):
    """An embedding with a low-rank update: `A` has a column for each id, `[rank, ids]`, and starts at zero.

    As in PEFT there is no dropout on it, and the row of a `padding_idx` is not trained. LoRA+'s ratio is for layers
    whose inputs are vectors.
    """

    def __init__(self, layer: Layer, config: LoraConfig) -> None:
        reason = config.refusal(layer.info)
        if reason:
            raise ValueError(f"the layer '{layer.info.path}' can't be adapted: {reason}")
        super().__init__(layer, config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to `[..., out]`, in the type of the frozen rows."""
        frozen = self.frozen
        assert isinstance(frozen, EmbeddingWeight)
        rows: torch.Tensor = frozen(x)
        low = frozen.look_up(x, self.lora_A.T)
        return rows + linear(low.to(rows.dtype), (self.lora_B * self._scale).to(rows.dtype))

    def rate_scales(self) -> Mapping[str, float]:
        """Returns no factors."""
        return {}
