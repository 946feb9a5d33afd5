"""Quantizers that break one promise each and keep the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from graftkit import LayerInfo, ProviderConfig, StoredWeight
from graftkit_quantizers.dense import Dense, DenseWeight
from pydantic import ConfigDict
from torch import nn


class CoarseWeight(DenseWeight):
    error_bound = 0.01


class BoundThatLies(Dense):
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        super().quantize(weight, layer)
        step = weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / 7
        return CoarseWeight((weight / step).round() * step)


class AcceptsNan(Dense):
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        return super().quantize(weight.nan_to_num(), layer)


class ForgivingWeight(DenseWeight):
    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> ForgivingWeight:
        return cls(tensors["weight"])


class ForgivesLeftOvers(Dense):
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        super().quantize(weight, layer)
        return ForgivingWeight(weight)


class KeepsTheMemory(Dense):
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        stored = super().quantize(weight, layer)
        stored.weight = nn.Parameter(weight, requires_grad=False)
        return stored


class ThawedWeight(DenseWeight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.to(x.dtype).T


class LearnsTheWeight(Dense):
    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> DenseWeight:
        super().quantize(weight, layer)
        stored = ThawedWeight(weight)
        stored.weight.requires_grad_(True)
        return stored


class FieldsBesideTorch(ProviderConfig):
    pass


class LoadsTorchToBeListed(Dense):
    config_class = FieldsBesideTorch

    def __init__(self, config: FieldsBesideTorch) -> None: ...


class WordlessFields(ProviderConfig):
    model_config = ConfigDict(extra="ignore")
    bits: int = 4


class HasAFieldWithoutWords(Dense):
    config_class = WordlessFields

    def __init__(self, config: WordlessFields) -> None: ...


class IgnoresUnknownFields(HasAFieldWithoutWords):
    pass


class CountedInFloat32(ProviderConfig):
    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int:
        return 4 * layer.out_features * layer.in_features


class CountsAsFloat32(Dense):
    config_class = CountedInFloat32

    def __init__(self, config: CountedInFloat32) -> None: ...


class AdoptsAnything(Dense):
    def adopt(self, stored: StoredWeight, layer: LayerInfo) -> DenseWeight:
        return DenseWeight(stored.tensors["weight"])
