"""The logits of a few places of a forward pass, without making the others."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["logits_at"]


def logits_at(network: Any, inputs: Mapping[str, Any], places: torch.Tensor) -> torch.Tensor:
    """Returns the logits of some places of a pass, `[places, vocabulary]`.

    Args:
        network: A transformers causal language model; where it takes `logits_to_keep`, no others are made.
        inputs: The keywords of its forward pass, one row.
        places: Positions in the row, `[places]`, int64.
    """
    if "logits_to_keep" in signature(network.forward).parameters:
        found: torch.Tensor = network(**inputs, logits_to_keep=places).logits[0]
        return found
    found = network(**inputs).logits[0, places]
    return found
