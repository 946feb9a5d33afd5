"""How a model may be continued token by token: what of it has been found to compute what whole sequences do."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

__all__ = ["Decoding", "cache_name"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a model's continuation may save, with the logits that whole sequences give.

    Attributes:
        cached: A token costs its own pass: the cache that the model gives holds all that is needed of those before.
            Else each token is computed with all before it.
        reused: A prompt that begins like the sequence before it goes on with what is kept of that.
        batched: Sequences of one length are continued side by side.
        padded: Sequences of different lengths are, too, padded on the left.
        shared: What all prompts begin with is computed once; the padding lies between that and the rest.
    """

    cached: bool = False
    reused: bool = False
    batched: bool = False
    padded: bool = False
    shared: bool = False


def cache_name(network: Any) -> str:
    """Returns by which name a model takes and gives its cache; one that is all state space (Mamba) has its own."""
    return "cache_params" if "cache_params" in signature(network.forward).parameters else "past_key_values"
