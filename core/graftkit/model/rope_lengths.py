"""Which rotary frequencies a model computes a sequence with, where that depends on how long the sequence is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["RopeLengths", "forget_longest"]


class RopeLengths:
    """By which lengths of a sequence the rotary frequencies of a model change, for all of its positions.

    Keys that were computed at one length are those of another length only where both have the same frequencies.
    `longrope` has one set for sequences within the original context and one for longer ones (LongRoPE, Ding et al.
    2024, as transformers computes it); `dynamic` has a set for each length beyond the original context.

    Args:
        network: A transformers model.
    """

    def __init__(self, network: Any) -> None:
        found = {rope for module in network.modules() for rope in _ropes(module)}
        self._long = sorted(border for kind, border in found if kind == "longrope")
        self._dynamic = sorted(border for kind, border in found if kind == "dynamic")

    def at(self, length: int) -> tuple[int, ...]:
        """Returns what is equal for two lengths whose frequencies are the same.

        Args:
            length: Tokens of a sequence.
        """
        beyond = (length if length > border else 0 for border in self._dynamic)
        return *(int(length > border) for border in self._long), *beyond


def _ropes(module: Any) -> Iterator[tuple[str, int]]:
    """Yields the kind of each set of rotary frequencies of a module and the length up to which it is the first one."""
    kinds = getattr(module, "rope_type", None)
    parameters = getattr(getattr(module, "config", None), "rope_parameters", None)
    if kinds is None or not isinstance(parameters, Mapping):
        return
    for layers, kind in kinds.items() if isinstance(kinds, Mapping) else [(None, kinds)]:
        own = parameters if layers is None else parameters.get(layers) or {}
        if kind == "longrope":
            yield kind, int(own["original_max_position_embeddings"])
        elif "dynamic" in str(kind):
            yield "dynamic", int(module.original_max_seq_len)


def forget_longest(network: Any) -> None:
    """Has dynamic rotary frequencies made for each sequence by its own length, as a fresh model makes them.

    transformers keeps those of the longest sequence so far for all later ones beyond the original context: what a
    sequence computes would depend on which came before it.

    Args:
        network: A transformers model.
    """
    for module in network.modules():
        if hasattr(module, "max_seq_len_cached") and _forget not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_forget)


def _forget(rope: Any, inputs: Any) -> None:
    for name in vars(rope):
        if name.endswith("max_seq_len_cached"):
            setattr(rope, name, 0)
