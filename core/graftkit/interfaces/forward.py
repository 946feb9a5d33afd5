"""The logits of a few positions of a forward pass, without making the others."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["logits_at"]


def logits_at(network: Any, inputs: Mapping[str, Any], positions: torch.Tensor) -> torch.Tensor:
    """Returns the logits of some positions of a pass, `[positions, vocabulary]`.

    Of a model with a head on sequences it returns the scores of the sequence, `[1, outputs]`.

    Args:
        network: A transformers model; where it takes `logits_to_keep`, no others are made.
        inputs: The keywords of its forward pass, one row.
        positions: Positions in the row, `[positions]`, int64.
    """
    if "logits_to_keep" in signature(network.forward).parameters:
        found: torch.Tensor = network(**inputs, logits_to_keep=positions).logits[0]
        return found
    logits: torch.Tensor = network(**inputs).logits
    return logits if logits.ndim == 2 else logits[0, positions]
