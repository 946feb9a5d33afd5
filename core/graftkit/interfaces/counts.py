"""Whether a configuration's numbers can be those of the weights beside it, before anything is built of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.config_numbers import LAYERS, WIDTHS, check_numbers, shown
from graftkit.interfaces.model_source import TensorInfo

__all__ = ["check_counts", "check_layers", "count_weights"]

_PARTS = re.compile(r"(layers?|blocks?|depths?|stages?|levels|experts|labels|codebooks|quantizers)$")
_UNBOUND = re.compile(r"(_id|_ids|theta|base|seed|positions?|embeddings|ctx|context|length|window|window_size|freq)$")
"""Keys of numbers that nothing has the size of: ids, contexts, frequencies."""
_ANY_PARTS = 1024
"""How many parts a configuration may name whatever the weights are: it may speak of what the model has none of."""
_ANY_NUMBER = 1 << 24
_MOST_LAYERS = 1000
"""Layers of a model, and of each of its parts; models in use have up to 200. Libraries build a module for each."""
_MOST_VALUES = 500_000
"""Values that a configuration may hold; models in use have up to 100,000, the names of their experts' layers."""
_DEEP = re.compile(r"(^|\.)(num_hidden_layers|n_layers?|num_layers|num_hidden_blocks|depth|(en|de)coder_layers)$")


def check_counts(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], where: str) -> None:
    """Compares the numbers of a config.json with the tensors in the headers of the weights.

    Libraries build a module for each layer that a configuration names, and tables as large as it says.

    Args:
        config: The config.json.
        tensors: Every tensor's shape, from the files' headers.
        where: The model's reference, for errors.

    Raises:
        ModelError: It names more layers, experts or other parts than there are tensors, or a size that none has.
    """
    check_layers(config, where)
    longest = max((size for info in tensors.values() for size in info.shape), default=0)
    own = text_settings(config)
    limits = {**dict.fromkeys(LAYERS, len(tensors)), **dict.fromkeys(WIDTHS, longest)}
    found = [(key, own[key], limit) for key, limit in limits.items() if isinstance(own.get(key), int)]
    for key, value in _numbers(config):
        parts = _PARTS.search(key) is not None
        if parts or not _UNBOUND.search(key):
            found.append((key, value, max(longest, *(_ANY_PARTS, len(tensors)) if parts else (_ANY_NUMBER,))))
    for key, value, limit in found:
        if value > limit:
            raise ModelError(
                f"the configuration's {key} is {shown(value)}, but the weights are {len(tensors):,} tensors, the "
                f"longest with {longest:,} rows or columns",
                where=where,
                hint="Configuration and weights do not belong together: take both from the same model.",
            )


def check_layers(config: Mapping[str, Any], where: str) -> None:
    """Refuses a config.json of far more layers than any model has, each of which takes milliseconds.

    Raises:
        ModelError: It names more layers, or fewer than none, or holds more values than any does, or numbers that
            `check_numbers` refuses; or `architectures` is no list of names.
    """
    _check_values(config, where)
    for key, value in _numbers(config):
        if _DEEP.search(key) and not 0 <= value <= _MOST_LAYERS:
            raise ModelError(
                f"the configuration's {key} is {shown(value)}; up to {_MOST_LAYERS:,} are read", where=where
            )
    check_numbers(config, where)
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list | tuple) and all(isinstance(name, str) for name in named)):
        raise ModelError(
            f"the configuration's architectures is {shown(named)}; a list of names, or null, is allowed", where=where
        )


def _check_values(config: Mapping[str, Any], where: str) -> None:
    """Counts the values of a configuration, at any depth, until there are too many."""
    count, left = 0, list(config.values())
    while left:
        value = left.pop()
        if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
            continue
        count += len(value)
        if count > _MOST_VALUES:
            raise ModelError(f"the configuration holds over {_MOST_VALUES:,} values; no model needs them", where=where)
        left.extend(value.values() if isinstance(value, Mapping) else value)


def count_weights(tensors: Mapping[str, TensorInfo]) -> int:
    """Returns how many numbers tensors hold."""
    return sum(prod(info.shape) for info in tensors.values())


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yields each whole number of a configuration with its dotted key, and the length of each list with its own."""
    if isinstance(value, int):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield path, len(value)
        for inner in value:
            yield from _numbers(inner, path)
