"""A config.json that mlx-lm reads as transformers does.

Of many architectures mlx-lm reads the keys that config.json had before transformers 5, and takes defaults of its own
where one is missing: a Llama's `rope_theta` that stands in `rope_parameters` alone it does not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["mlx_settings"]

_OF_ALL_MODELS = ("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
_FULL, _SLIDING = "full_attention", "sliding_attention"


def mlx_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with every key that its architecture has in transformers, and the older names of some.

    Args:
        config: A model's configuration, with the keys of a `config.json`.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    own = {key: value for key, value in config.items() if key != "quantization_config"}
    kind = CONFIG_MAPPING[own["model_type"]]
    common = PreTrainedConfig().to_dict()
    filled = kind(**own).to_dict()
    found = {key: value for key, value in filled.items() if key in _OF_ALL_MODELS or key not in common} | own
    found |= {old: filled[new] for old, new in kind.attribute_map.items() if new in filled and old not in found}
    heads, width = found.get("num_attention_heads"), found.get("hidden_size")
    computed = isinstance(getattr(kind, "head_dim", None), property)
    if isinstance(heads, int) and isinstance(width, int) and not computed:
        found["head_dim"] = found.get("head_dim") or width // heads
    return found | _rope(filled.get("rope_parameters") or {}) | _pattern(filled)


def _rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a rotary embedding that were config.json's own."""
    if isinstance(parameters.get(_FULL), Mapping):
        local = parameters.get(_SLIDING) or {}
        return _rope(parameters[_FULL]) | ({"rope_local_base_freq": local["rope_theta"]} if local else {})
    if "rope_theta" not in parameters:
        return {}
    scaling = {key: value for key, value in parameters.items() if key not in ("rope_theta", "partial_rotary_factor")}
    part = {key: parameters[key] for key in ("partial_rotary_factor",) if key in parameters}
    scaled = scaling.get("rope_type", "default") != "default"
    return {"rope_theta": parameters["rope_theta"], "rope_scaling": scaling if scaled else None, **part}


def _pattern(filled: Mapping[str, Any]) -> dict[str, Any]:
    """Returns after how many layers one attends to everything, where the kinds of layers are listed and say so."""
    kinds = filled.get("layer_types") or []
    period = kinds.index(_FULL) + 1 if _SLIDING in kinds and _FULL in kinds else 0
    regular = period and all((kind == _FULL) == (n % period == 0) for n, kind in enumerate(kinds, 1))
    return {"sliding_window_pattern": period} if regular else {}
