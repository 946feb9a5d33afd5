"""Adapters that break one promise each and keep the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from graftkit import Layer, LayerInfo
from graftkit.interfaces.observing import ObservedStart
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_adapters.lora_weight import LoraEmbedding, LoraWeight
from torch import nn


class UnscaledWeight(LoraWeight):
    def delta(self) -> torch.Tensor:
        return self.lora_B.detach() @ self.lora_A.detach()


class MergesOtherwise(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return UnscaledWeight(layer, self._config)


class StartsElsewhere(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        adapted = super().attach(layer)
        nn.init.constant_(adapted.lora_B, 1e-3)
        return adapted


class DrawsByItself(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        adapted = super().attach(layer)
        nn.init.uniform_(adapted.lora_A)
        return adapted


class HalfLoadedWeight(LoraWeight):
    def load_adapter_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name in sorted(self.trainable_parameters()):
                if name not in tensors or tensors[name].shape != getattr(self, name).shape:
                    raise ValueError(name)
                getattr(self, name).copy_(tensors[name])
        if len(tensors) != 2:
            raise ValueError("left over")


class LoadsHalf(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return HalfLoadedWeight(layer, self._config)


class NeverOffWeight(LoraWeight):
    __call__ = nn.Module.__call__


class CannotBeDisabled(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return NeverOffWeight(layer, self._config)


class DoubleBiasWeight(LoraWeight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if self.bias is None else y + self.bias.to(y.dtype) * self.lora_B.any()


class AddsTheBiasToo(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return DoubleBiasWeight(layer, self._config)


class RatesOfNothingWeight(LoraWeight):
    def rate_scales(self) -> Mapping[str, float]:
        return {"lora_C": 16.0}


class ScalesTheRateOfNothing(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return RatesOfNothingWeight(layer, self._config)


class StandsStillWeight(LoraWeight):
    def rate_scales(self) -> Mapping[str, float]:
        return {"lora_A": 0.0}


class ScalesTheRateToNothing(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        return StandsStillWeight(layer, self._config)


class HalfCounted(LoraConfig):
    def trainable_parameters(self, layer: LayerInfo) -> int:
        return self.rank * layer.in_features


class CountsHalf(Lora):
    config_class = HalfCounted


class Choosy(LoraConfig):
    def refusal(self, layer: LayerInfo) -> str | None:
        return None if layer.bias else "it has no bias"


class TakesWhatItRefuses(Lora):
    config_class = Choosy


class ReplacesInSecret(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        adapted = super().attach(layer)
        adapted.frozen = layer.requantize(layer.original())
        return adapted


class KeepsTheStartToItself(Lora):
    def attach(self, layer: Layer) -> LoraWeight:
        adapted = super().attach(layer)
        adapted._scale *= layer.original().abs().mean().item()
        return adapted


class TransposedEmbedding(LoraEmbedding):
    def delta(self) -> torch.Tensor:
        return super().delta().T


class MergesRowsAsColumns(Lora):
    config_class = LoraConfig

    def attach(self, layer: Layer) -> LoraWeight:
        own = layer.info.kind == "embedding"
        return TransposedEmbedding(layer, self._config) if own else super().attach(layer)


class NoDoraOnEmbeddings(LoraConfig):
    def refusal(self, layer: LayerInfo) -> str | None:
        return "it is an embedding" if layer.kind == "embedding" else None


class TakesEmbeddingsAllTheSame(Lora):
    config_class = NoDoraOnEmbeddings

    def attach(self, layer: Layer) -> LoraWeight:
        return LoraWeight(layer, self._config)


class Watches(Lora):
    """Starts each layer from the first rows that it sees, and breaks no promise by itself."""

    rank, observed_tokens = 16, 50

    def observer(self, layers: Sequence[LayerInfo]) -> Watches:  # type: ignore[override]
        self._layers, self._seen = list(layers), dict[str, torch.Tensor]()
        return self

    def observe(self, path: str, inputs: torch.Tensor) -> None:
        self._seen.setdefault(path, inputs[: self.rank].clone())

    def start(self, shared: Mapping[str, str]) -> ObservedStart:
        if not self._seen:
            raise ValueError("nothing was seen")
        starts = {layer.path: {"lora_A": self._seen[shared.get(layer.path, layer.path)]} for layer in self._layers}
        return ObservedStart(starts)


class StartsByChance(Watches):
    def observe(self, path: str, inputs: torch.Tensor) -> None:
        super().observe(path, inputs[torch.randperm(len(inputs))])


class StartsOnItsOwn(Watches):
    def observe(self, path: str, inputs: torch.Tensor) -> None:
        super().observe(path, torch.ones_like(inputs))


class StartsWithAnotherRank(Watches):
    rank = 3


class StartsFromNothing(Watches):
    def start(self, shared: Mapping[str, str]) -> ObservedStart:
        return super().start(shared) if self._seen else ObservedStart({})
