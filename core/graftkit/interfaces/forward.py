"""The logits of a few positions of a forward pass, without making the others, or the vector of a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from graftkit.interfaces.architecture import EMBEDDING_POOLING, head_of

if TYPE_CHECKING:
    import torch

__all__ = ["logits_at", "pooled"]


def pooled(states: torch.Tensor, by: str) -> torch.Tensor:
    """Returns the vector of a sequence, `[hidden]`, which is not brought to a length of 1.

    Args:
        states: The hidden states of its tokens, `[tokens, hidden]`.
        by: One of `graftkit.interfaces.architecture.PooledBy`.
    """
    if by == "mean":
        return states.mean(0)
    return states[0] if by == "cls" else states[-1]


def logits_at(network: Any, inputs: Mapping[str, Any], positions: torch.Tensor) -> torch.Tensor:
    """Returns the logits of some positions of a pass, `[positions, vocabulary]`.

    Of a model with a head on sequences it returns the scores of the sequence, `[1, outputs]`, and of one that embeds
    them the vector of the sequence, `[1, hidden]`.

    Args:
        network: A transformers model; where it takes `logits_to_keep`, no others are made.
        inputs: The keywords of its forward pass, one row.
        positions: Positions in the row, `[positions]`, int64.
    """
    if head_of({"architectures": network.config.architectures}) == "embedding":
        states = network(**inputs).last_hidden_state[0]
        return pooled(states, getattr(network.config, EMBEDDING_POOLING)).unsqueeze(0)
    if "logits_to_keep" in signature(network.forward).parameters:
        found: torch.Tensor = network(**inputs, logits_to_keep=positions).logits[0]
        return found
    logits: torch.Tensor = network(**inputs).logits
    return logits if logits.ndim == 2 else logits[0, positions]
