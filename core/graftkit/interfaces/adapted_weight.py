"""A frozen weight with something trainable on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import Layer, LayerInfo

__all__ = ["AdaptedWeight"]


class AdaptedWeight(nn.Module, ABC):
    """Computes `x (W + delta)^T + bias_delta` for a frozen `W [out, in]`; only its own parameters are trained.

    The layer adds its frozen bias to the result. On an embedding `x` are ids `[...]`, and each stands for its unit
    vector: the result is the id's row of `(W + delta)^T`, in the type of the frozen weight's rows
    (`graftkit.interfaces.frozen_weight.EmbeddingWeight`).

    Attributes:
        frozen: The frozen weight.
        info: The layer's path, kind and sizes.
        enabled: Whether `forward` is what calling it computes. Otherwise it computes exactly what the frozen weight
            does, as the base model answers beside the trained one; see `graftkit.model.adapt.adapters_disabled`.
        replaced: Whether `replace_frozen` put another frozen weight in the place of the base model's.
    """

    frozen: FrozenWeight
    info: LayerInfo

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.frozen = layer.weight
        self.info = layer.info
        self.enabled = True
        self.replaced = False
        self._bias = (layer.bias,)  # in a tuple, since a Parameter itself would become one of this module's

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Computes `forward`, or what the frozen weight does where the adapter is not enabled.

        Raises:
            TrainingError: It is not enabled, and its frozen weight is not the base model's.
        """
        if self.enabled:
            return super().__call__(*args, **keywords)
        if self.replaced:
            raise TrainingError(
                "without its adapter it would not compute what the base model does: the adapter has put another "
                "frozen weight in the place of the model's",
                where=self.info.path,
                hint="Take an adapter that leaves the frozen weight as it is.",
            )
        return self.frozen(*args, **keywords)

    def replace_frozen(self, weight: FrozenWeight) -> None:
        """Puts another frozen weight in the place of the base model's, such as `W - B A` at the start of PiSSA.

        With what `delta()` adds to it, it must make the layer compute at the start what the base model does. There is
        no base model any more then to put the adapter on: such a model can be merged, and its adapter has no form in
        PEFT (`Adapter.peft_config` returns None). Only `__init__` may call it: a run that goes on, and a model that is
        loaded again, attach the adapter anew, so that what it makes must depend on the layer and the seed alone.

        Args:
            weight: `[out, in]`, what `Layer.requantize` gave.

        Raises:
            ValueError: It has another shape.
        """
        shape, own = (weight.out_features, weight.in_features), (self.info.out_features, self.info.in_features)
        if shape != own:
            raise ValueError(f"the frozen weight of '{self.info.path}' is {list(own)}, not {list(shape)}")
        self.frozen = weight
        self.replaced = True

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]`, or ids `[...]`, to `[..., out]`."""

    @abstractmethod
    def delta(self) -> torch.Tensor:
        """Returns what a merge adds to the frozen weight: `[out, in]`, float32."""

    @property
    def bias(self) -> torch.Tensor | None:
        """The layer's frozen bias, `[out]`, or None. The layer adds it: `forward` must not."""
        return self._bias[0]

    def bias_delta(self) -> torch.Tensor | None:
        """Returns what a merge adds to the layer's bias, `[out]`, float32, detached; None for nothing.

        `forward` adds it as well. It is None where the layer has no bias.
        """
        return None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that training changes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def rate_scales(self) -> Mapping[str, float]:
        """Returns factors on the learning rate by the parameter's name, positive and finite; 1 where none is given.

        LoRA+ (Hayou et al., 2024, https://arxiv.org/abs/2402.12354) trains one of LoRA's two matrices faster.
        """
        return {}

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Returns the adapter's own tensors by name: all that must be stored besides the frozen weight."""
        return {name: parameter.detach() for name, parameter in self.trainable_parameters().items()}

    def load_adapter_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes over tensors that `adapter_state` gave.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape; nothing is changed then.
        """
        own = self.trainable_parameters()
        missing, left_over = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        if missing or left_over:
            raise ValueError(f"adapter state does not fit: missing {missing}, left over {left_over}")
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise ValueError(
                    f"adapter tensor {name!r} has shape {list(tensors[name].shape)}, not {list(parameter.shape)}"
                )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])
