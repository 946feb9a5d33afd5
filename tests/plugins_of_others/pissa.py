"""Adapters that start from a layer's original weight: the first users of what a `Layer` tells of it.

PiSSA (Meng et al., 2024, https://arxiv.org/abs/2404.02948) takes the largest singular values and their vectors for the
start of LoRA's `B A`. What is left of the weight is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from graftkit import AdaptedWeight, Layer
from torch import nn
from torch.nn.functional import linear

RANK = 4


def principal(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns `A [rank, in]` and `B [out, rank]` of a weight, whose product is its best approximation of this rank."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = values[:RANK].sqrt()
    return (root.unsqueeze(1) * right[:RANK]).contiguous(), (left[:, :RANK] * root).contiguous()


class Pissa:
    """Stores what is left of the weight in its place, as QPiSSA does."""

    def attach(self, layer: Layer) -> AdaptedWeight:
        return PissaWeight(layer)

    def peft_config(self) -> Mapping[str, Any] | None:
        return None

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        raise NotImplementedError

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        raise NotImplementedError


class PissaWeight(AdaptedWeight):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        weight = layer.original()
        a, b = self.start(weight, layer.generator)
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        self.replace_frozen(layer.requantize(weight - b @ a))

    def start(self, weight: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return principal(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.frozen(x)
        return y + linear(linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))

    def delta(self) -> torch.Tensor:
        return self.lora_B.detach() @ self.lora_A.detach()


class RandomResidual(Pissa):
    """Takes a random part of the weight off it, another one for every seed."""

    def attach(self, layer: Layer) -> AdaptedWeight:
        return RandomResidualWeight(layer)


class RandomResidualWeight(PissaWeight):
    def start(self, weight: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        directions = torch.randn(weight.shape[1], RANK, generator=generator)
        a = torch.linalg.qr(directions)[0].T.contiguous()
        return a, weight @ a.T


class PlainPissa:
    """Leaves the frozen weight as it is and takes the start off what is trained, which PEFT has as plain LoRA."""

    def attach(self, layer: Layer) -> AdaptedWeight:
        return PlainPissaWeight(layer)

    def peft_config(self) -> Mapping[str, Any] | None:
        rank = 2 * RANK
        return {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none"}

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        state = adapted.adapter_state()
        return {
            "lora_A.weight": torch.cat([state["lora_A"], state["start_A"]]),
            "lora_B.weight": torch.cat([state["lora_B"], -state["start_B"]], dim=1),
        }

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        a, b = tensors["lora_A.weight"].chunk(2), tensors["lora_B.weight"].chunk(2, dim=1)
        return {"lora_A": a[0], "start_A": a[1], "lora_B": b[0], "start_B": -b[1]}


class PlainPissaWeight(AdaptedWeight):
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        a, b = principal(layer.original())
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        self.start_A, self.start_B = (nn.Parameter(start.clone(), requires_grad=False) for start in (a, b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.frozen(x)
        learnt = linear(linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))
        return y + learnt - linear(linear(x, self.start_A.to(x.dtype)), self.start_B.to(x.dtype))

    def delta(self) -> torch.Tensor:
        return self.lora_B.detach() @ self.lora_A.detach() - self.start_B @ self.start_A

    def adapter_state(self) -> dict[str, torch.Tensor]:
        return super().adapter_state() | {"start_A": self.start_A.detach(), "start_B": self.start_B.detach()}

    def load_adapter_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        own = self.adapter_state()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise ValueError(f"adapter state does not fit: it has {', '.join(own)}")
        with torch.no_grad():
            for name in own:
                self.get_parameter(name).copy_(tensors[name])
