"""The output layer of a model as a layer that can be adapted.

It is stored as the rest of the model outside the blocks is, in the type of the computation, whatever the quantizer.
Where the base model ties it to the embedding, its frozen weight stays the embedding's matrix; what the adapter adds is
the output layer's alone, so that the result is a model whose output layer has a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.model.layers import output_layer
from graftkit.model.linear import FrozenLinear

__all__ = ["HeldWeight", "OutputLinear", "has_adapted_output", "put_output", "ties_output", "untied"]


class HeldWeight(FrozenWeight):
    """A frozen weight that is kept as it is, and may be another module's, too.

    Attributes:
        weight: `[out, in]`.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__(*weight.shape)
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the matrix, `[out, in]`."""
        return self.weight.detach().to(dtype)

    def meta(self) -> dict[str, Any]:
        """Nothing is needed beside the tensor."""
        return {}

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from its one tensor."""
        if tensors.keys() != {"weight"}:
            raise ValueError(f"stored tensors {sorted(tensors)} are not ['weight']")
        return cls(tensors["weight"])


class OutputLinear(FrozenLinear):
    """The layer that makes the logits, adapted."""

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, `[vocabulary, hidden]`, in the type that the layer computes in."""
        frozen = self.frozen
        assert isinstance(frozen, HeldWeight)
        return frozen.weight


def put_output(network: Any) -> OutputLinear:
    """Puts an output layer that can be adapted in the place of the model's own, whose matrix it shares.

    Args:
        network: The model, whose output layer is a plain linear one.
    """
    info, head = output_layer(network), network.get_output_embeddings()
    assert info is not None
    layer = OutputLinear(HeldWeight(head.weight), info)
    layer.bias = head.bias
    network.set_submodule(info.path, layer)
    return layer


def has_adapted_output(network: nn.Module) -> bool:
    """Tells whether a model's output layer is adapted."""
    return any(isinstance(m, OutputLinear) and isinstance(m.core, AdaptedWeight) for m in network.modules())


def ties_output(network: Any) -> bool:
    """Tells whether a model's configuration ties its output layer to its embedding."""
    return bool(network.config.get_text_config().tie_word_embeddings)


def untied(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a configuration whose output layer has a matrix of its own."""
    text = text_settings(config)
    if text.get("tie_word_embeddings") is False:
        return config
    changed = {**config, "tie_word_embeddings": False}
    return changed if text is config else {**changed, "text_config": {**text, "tie_word_embeddings": False}}
