"""The layers outside of a model's blocks that can be adapted: its embedding and its output layer.

They are stored as the rest of the model outside the blocks is, in the type of the computation, whatever the quantizer.
Where the base model ties the two, each keeps that one matrix as its frozen weight; what an adapter adds is its own
layer's alone, so that the result is a model whose output layer has a matrix of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.frozen_weight import EmbeddingWeight, FrozenWeight, PlainWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.model.layers import embedding_layer, output_layer
from graftkit.model.linear import FrozenLinear
from graftkit.model.row_scale import RowScale, row_scale_of

__all__ = [
    "EmbeddingLayer",
    "OuterLayer",
    "OutputLinear",
    "adapts_outer_layer",
    "hidden_matrices",
    "outer_layer_at",
    "outer_layers",
    "outer_weight",
    "ties_output",
    "untie",
    "untied",
]


class OuterLayer(FrozenLinear):
    """A layer outside of the blocks, whose frozen weight is never quantized."""

    @property
    @abstractmethod
    def weight(self) -> torch.Tensor:
        """The frozen weight as the architecture stores it, `[vocabulary, hidden]`, in the type of the computation."""


class OutputLinear(OuterLayer):
    """The layer that makes the logits, adapted."""

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, `[vocabulary, hidden]`, in the type that the layer computes in."""
        frozen = self.frozen
        assert isinstance(frozen, PlainWeight)
        return frozen.weight


class EmbeddingLayer(OuterLayer):
    """The embedding of the tokens, adapted.

    Attributes:
        scale: What every row is multiplied by once it is looked up and adapted, as Gemma does.
    """

    def __init__(self, core: FrozenWeight | AdaptedWeight, info: LayerInfo, scale: RowScale) -> None:
        super().__init__(core, info)
        self.scale = scale

    @property
    def weight(self) -> torch.Tensor:
        """The frozen rows, `[vocabulary, hidden]`, in the type of the computation."""
        frozen = self.frozen
        assert isinstance(frozen, EmbeddingWeight)
        return frozen.rows

    @property
    def num_embeddings(self) -> int:
        """Rows in all."""
        return self.weight.shape[0]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Maps ids `[...]` to `[..., hidden]`."""
        rows: torch.Tensor = self.core(ids)
        return self.scale.times(rows)


def outer_layers(model: nn.Module) -> list[LayerInfo]:
    """Returns those of a transformers model's embedding and output layer that can be adapted.

    Args:
        model: The model; its weights may be on the meta device.
    """
    return [info for info in (embedding_layer(model), output_layer(model)) if info is not None]


def outer_layer_at(network: Any, path: str) -> OuterLayer | None:
    """Puts a layer that can be adapted in the place of the model's own embedding or output layer, whose matrix it has.

    Args:
        network: The model.
        path: The dotted path of the layer.

    Returns:
        The layer, or None where that of this path is neither of the two, or can't be adapted.
    """
    own = network.get_submodule(path)
    info = next((info for info in outer_layers(network) if info.path == path), None)
    if info is None:
        return None
    layer: OuterLayer
    if info.kind == "embedding":
        layer = EmbeddingLayer(EmbeddingWeight(own.weight, own.padding_idx), info, row_scale_of(own))
    else:
        layer = OutputLinear(PlainWeight(own.weight), info)
        layer.bias = own.bias
    network.set_submodule(path, layer)
    return layer


def outer_weight(weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
    """Stores a matrix `[out, in]` as the frozen weight of an embedding or an output layer."""
    return EmbeddingWeight(weight.T.contiguous()) if layer.kind == "embedding" else PlainWeight(weight)


def hidden_matrices(network: nn.Module, adapted: Mapping[str, AdaptedWeight]) -> dict[str, nn.Parameter]:
    """Returns the matrices that an adapter trains in a model's hidden layers: not in embedding and output layer.

    Args:
        network: The model.
        adapted: Its adapted layers, by their dotted paths.

    Returns:
        By layer and name, as `AdaptedModel.trainable_parameters` calls them.
    """
    outer = {path for path, module in network.named_modules() if isinstance(module, OuterLayer)}
    return {
        f"{layer}.{name}": parameter
        for layer, weight in adapted.items()
        if layer not in outer
        for name, parameter in weight.trainable_parameters().items()
        if parameter.dim() == 2
    }


def adapts_outer_layer(network: nn.Module) -> bool:
    """Tells whether a model's embedding or its output layer is adapted."""
    return any(isinstance(m, OuterLayer) and isinstance(m.core, AdaptedWeight) for m in network.modules())


def ties_output(network: Any) -> bool:
    """Tells whether a model has an output layer that its configuration ties to its embedding."""
    config = network.config
    tied = getattr(config.get_text_config(), "tie_word_embeddings", getattr(config, "tie_word_embeddings", False))
    return network.get_output_embeddings() is not None and bool(tied)


@torch.no_grad()
def untie(network: Any) -> None:
    """Gives a model whose output layer shares the embedding's matrix one of its own, with the same numbers."""
    head = network.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    network.config.get_text_config().tie_word_embeddings = False


def untied(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a configuration whose output layer has a matrix of its own."""
    text = text_settings(config)
    if text.get("tie_word_embeddings") is False:
        return config
    changed = {**config, "tie_word_embeddings": False}
    return changed if text is config else {**changed, "text_config": {**text, "tie_word_embeddings": False}}
