"""Whether the numbers of a configuration can be those of any model, whatever its weights are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import text_settings

__all__ = ["CONTEXTS", "LAYERS", "WIDTHS", "check_numbers", "shown"]

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""How configurations of language models call the number of their layers, each of which has a tensor at least."""
WIDTHS = ("hidden_size", "n_embd", "d_model")
"""How they call their width, which is a dimension of their embedding at least."""
CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length")
"""How they call the number of tokens that a sequence may have."""

_ONE_OR_MORE = frozenset(
    [
        *WIDTHS,
        *("vocab_size", "head_dim"),
        *("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_kv_heads", "n_head_kv"),
    ]
)
_NONE_OR_MORE = frozenset(
    [
        *LAYERS,
        *("intermediate_size", "n_inner", "ffn_dim", "d_ff"),
        *("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "n_shared_experts"),
        *("num_experts_per_tok", "moe_topk", "moe_intermediate_size", "shared_expert_intermediate_size"),
        *("sliding_window", "sliding_window_size", "original_max_position_embeddings"),
    ]
)
"""Counts that are 0 where a model has no such part, as a mixture of experts has no other feed-forward layer."""
_LEAST = dict.fromkeys(_ONE_OR_MORE, 1) | dict.fromkeys(_NONE_OR_MORE, 0) | dict.fromkeys(CONTEXTS, -1)
"""Key -> the least that is allowed: a context of -1 is an unknown one, as OLMo-core's conversion writes it."""
_ROPE = ("rope_scaling", "rope_parameters")
"""Settings of rotary embeddings, of which there may be some for each kind of layer."""
_ABOVE_ZERO = re.compile(r"(rope_theta|rotary_emb_base|_base_freq|^factor)$")
_FROM_ZERO = re.compile(r"_eps(ilon)?$")
_LAYER_TYPES = re.compile(r"(layer|block)s?_types?$")
_MOST_LAYER_TYPES = 2000
"""Entries of a list of what each layer is: those of layers that predict further tokens may follow the model's own."""
_LARGEST = 1 << 63


def check_numbers(config: Mapping[str, Any], where: str) -> None:
    """Refuses a configuration whose language model has numbers that no model has.

    A key may be missing or null; a number may stand in a list, one a layer, where 0 and null say that a layer has no
    such part.

    Args:
        config: The config.json.
        where: The model's reference, for errors.

    Raises:
        ModelError: A dimension, a count of parts or a number of tokens is no whole number, too small, or beyond 64
            bits; a base of rotary embeddings, a scaling factor or an epsilon is no number in its range; NaN stands
            anywhere; or a list of kinds of layers is far longer than there are layers.
    """
    own = text_settings(config)
    for path, value, listed in _values(own):
        inside, _, key = path.rpartition(".")
        if isinstance(value, float) and math.isnan(value):
            allowed = "a number"
        elif value is None or (key == "sliding_window" and own.get("use_sliding_window") is False):
            allowed = ""  # there is no such part, whatever is said of it
        elif inside and inside.partition(".")[0] not in _ROPE:
            allowed = ""  # of a part that is no language model
        elif isinstance(value, list):
            long = _LAYER_TYPES.search(key) and len(value) > _MOST_LAYER_TYPES
            allowed = f"a list of up to {_MOST_LAYER_TYPES:,} entries" if long else ""
        else:
            # heads that are computed from a latent vector have other dimensions than this one
            unused = listed or (key == "head_dim" and own.get("kv_lora_rank") is not None)
            allowed = _allowed(key, value, unused=unused)
        if allowed:
            raise ModelError(
                f"the configuration's {path} is {shown(value)}; {allowed} is allowed",
                where=where,
                hint="Take config.json from where the weights come from.",
            )


def _allowed(key: str, value: Any, *, unused: bool) -> str:
    """Returns what is allowed in a value's place, or "" where it is.

    Args:
        key: Its key.
        value: The value, no list and not null.
        unused: Whether 0 may say that there is no such part.
    """
    if key in _LEAST:
        least = min(_LEAST[key], 0) if unused else _LEAST[key]
        sound = isinstance(value, int) and not isinstance(value, bool) and least <= value < _LARGEST
        return "" if sound else f"a whole number from {least} on, or null,"
    if not (_ABOVE_ZERO.search(key) or _FROM_ZERO.search(key)):
        return ""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if _FROM_ZERO.search(key) or unused:
        return "" if number and value >= 0 else "a number from 0 on, or null,"
    return "" if number and value > 0 else "a number above 0, or null,"


def _values(value: Any, path: str = "", *, listed: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Yields what a configuration holds with its dotted key, lists and their entries, and whether it is an entry."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, f"{path}.{key}" if path else str(key))
        return
    yield path, value, listed
    if isinstance(value, list):
        for inner in value:
            yield from _values(inner, path, listed=True)


def shown(value: Any) -> str:
    """Returns a value of a configuration as an error shows it, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value.bit_length() < 64 else "a number of over 64 bits"
    if isinstance(value, Mapping | list | tuple):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value):,} entries"
    return "NaN" if value != value else f"{value!r:.40}"
