"""Keys and values of sequences that grow by a token a pass, written into their place instead of copied each time."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

__all__ = ["RoomyLayer", "can_grow", "can_select", "with_room"]


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """A layer's keys and values with room for those to come; `keys` and `values` are views of the part that is filled.

    transformers' own layer puts what is new behind the rest by copying both, all of it, in every pass.

    Args:
        layer: What the layer holds so far.
        room: For how many further tokens there is room at first.
    """

    def __init__(self, layer: DynamicLayer, room: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._filled = 0
        self._keys, self._values = (_with_room(held, room) for held in (layer.keys, layer.values))
        self._fill(layer.keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values, `[batch, heads, new, dimension]`; returns all."""
        start, end = self._filled, self._filled + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._keys, self._values = (_with_room(held, end) for held in (self._keys, self._values))
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self._fill(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some of the sequences."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._fill(self._filled)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Holds each sequence so many times, one copy after the other."""
        self._keys, self._values = (held.repeat_interleave(repeats, dim=0) for held in (self._keys, self._values))
        self._fill(self._filled)

    def _fill(self, end: int) -> None:
        self._filled = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]


def with_room(cache: Any, room: int) -> Any:
    """Returns a cache whose layers that keep every key and value have room for further tokens; others stay as they are.

    Args:
        cache: What a first pass has given.
        room: How many tokens are to come.
    """
    layers = getattr(cache, "layers", None)
    if isinstance(layers, list):
        cache.layers = [RoomyLayer(layer, room) if type(layer) is DynamicLayer else layer for layer in layers]
    return cache


def can_grow(cache: Any) -> bool:
    """Tells whether every layer of a cache keeps every key and value, in transformers' own form."""
    layers = getattr(cache, "layers", None)
    return isinstance(layers, list) and all(type(layer) is DynamicLayer for layer in layers)


def can_select(cache: Any) -> bool:
    """Tells whether every layer of a cache can go on with some of its sequences."""
    layers = getattr(cache, "layers", None)
    return isinstance(layers, list) and all(isinstance(layer, RoomyLayer) for layer in layers)


def _with_room(held: torch.Tensor, room: int) -> torch.Tensor:
    """Returns a copy of `[batch, heads, tokens, dimension]` with room for further tokens."""
    batch, heads, tokens, dimension = held.shape
    larger = held.new_empty(batch, heads, tokens + room, dimension)
    larger[:, :, :tokens] = held
    return larger
