"""The output layer of a model as a layer that can be adapted.

It is stored as the rest of the model outside the blocks is, in the type of the computation, whatever the quantizer.
Where the base model ties it to the embedding, its frozen weight stays the embedding's matrix; what the adapter adds is
the output layer's alone, so that the result is a model whose output layer has a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.frozen_weight import PlainWeight
from graftkit.model.layers import output_layer
from graftkit.model.linear import FrozenLinear

__all__ = ["OutputLinear", "has_adapted_output", "put_output", "ties_output", "untied"]


class OutputLinear(FrozenLinear):
    """The layer that makes the logits, adapted."""

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, `[vocabulary, hidden]`, in the type that the layer computes in."""
        frozen = self.frozen
        assert isinstance(frozen, PlainWeight)
        return frozen.weight


def put_output(network: Any) -> OutputLinear:
    """Puts an output layer that can be adapted in the place of the model's own, whose matrix it shares.

    Args:
        network: The model, whose output layer is a plain linear one.
    """
    info, head = output_layer(network), network.get_output_embeddings()
    assert info is not None
    layer = OutputLinear(PlainWeight(head.weight), info)
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
