"""A frozen weight with something trainable on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from graftkit.interfaces.layer import Layer, LayerInfo

__all__ = ["AdaptedWeight"]


class AdaptedWeight(nn.Module, ABC):
    """Computes `x (W + delta)^T` for a frozen `W [out, in]`; only its own parameters are trained.

    Attributes:
        frozen: The frozen weight.
        info: The layer's path, kind and sizes.
    """

    info: LayerInfo

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.frozen = layer.weight
        self.info = layer.info

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`."""

    @abstractmethod
    def delta(self) -> torch.Tensor:
        """Returns what a merge adds to the frozen weight: `[out, in]`, float32."""

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that training changes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

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
