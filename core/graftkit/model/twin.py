"""A shrunken twin of a model: every kind of layer of its configuration, few and narrow, with random weights.

What a model computes for packed sequences is tried on the twin in a second, where the model itself would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.architecture import head_of, model_class
from graftkit.interfaces.exporter import Twin
from graftkit.interfaces.fork_lock import ForkLock
from graftkit.model.parts import empty_towers
from graftkit.model.skeleton import EmptyOnMeta, build_config
from graftkit.model.weight_names import published_tensors

__all__ = [
    "ANY_WEIGHTS",
    "LONGEST",
    "ONE_TRIAL",
    "build_twin",
    "count_layers",
    "fewest_layers",
    "published_twin",
    "relative_difference",
    "with_layers",
]

LONGEST = 40
"""Tokens of the longest sequence that a twin is tried on: longer than its windows."""
ONE_TRIAL = ForkLock()
"""Twins are tried with switches of transformers' and of torch that are the whole process's."""
_WINDOW = 16
_VOCABULARY = 96
_VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input")
_LABELS = 16

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "depth")
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "decoder_attention_heads", "encoder_attention_heads")
_FEED_FORWARD = (
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "ffn_dim",
    "decoder_ffn_dim",
    "encoder_ffn_dim",
    "n_inner",
)
_INPUTS, _INPUT = ("hidden_size_per_layer_input",), 16
"""Embeddings of tokens that each layer has of its own, and how wide they are at most."""
ANY_WEIGHTS = 1 << 22
"""How many weights a twin may have whatever its model has: 16 MB."""
_CHUNKS = ("chunk_size", "mamba_chunk_size")
"""Tokens that a scan computes at a time, whatever the result."""
_WINDOWS = (
    "local_attention",
    "sliding_window",
    "sliding_window_size",
    "attention_chunk_size",
    "window_size",
    "attention_window",
    "attention_window_size",
    "keep_window_size",
    "index_topk",
)
_RATES = "compress_rates"
"""Of each kind of layer, how many tokens become one that later ones attend to."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_TAKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
_EXPERT_GROUPS = ("n_group", "num_expert_group")
_SHARED = "num_kv_shared_layers"
"""How many of the last layers use keys and values of earlier ones."""
_PERIODS = ("period", "offset", "interval", "pattern", "frequency", "_freq", "skip", "first_k_dense")
_MOVED = 0.02
"""By how much the parameters of a twin are moved, that stands for a trained model."""
_PADDING = 1
"""An id that no tried sequence has."""
_SPECIALS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def build_twin(config: Mapping[str, Any], *, short_windows: bool = True, most_weights: int | None = None) -> Any:
    """Returns a small model of the same architecture, float32, on the CPU, in evaluation mode.

    The towers of a multimodal model are on the meta device: that text is computed shows that it needs none of them.

    Args:
        config: The model's config.json.
        short_windows: Whether windows, chunks and original contexts are shortened to fewer than `LONGEST` tokens.
        most_weights: How many weights the twin may have, such as the model's own; None for any number.

    Raises:
        Exception: transformers does not build it, in any of the sizes that are tried, with so few weights.
    """
    failed: Exception | None = None
    for settings in _settings(config, short_windows):
        try:
            return _built(settings, most_weights)
        except Exception as error:
            failed = error
    assert failed is not None
    raise failed


def published_twin(config: Mapping[str, Any], *, short_windows: bool = True) -> Twin:
    """Returns a model's twin with its tensors as published files have them; see `build_twin`.

    Norms and biases are moved off the ones and zeros that they begin as, so that each tensor counts.
    """
    model = build_twin(config, short_windows=short_windows)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_meta:
                parameter.add_(_MOVED * torch.randn(parameter.shape, generator=generator))
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_meta:  # as those of towers are
            found.setdefault(tensor.data_ptr(), (name, tensor))
    own = dict(found.values())
    return Twin(model, model.config.to_dict(), own, dict(published_tensors(model, model, own.items())))


def _settings(config: Mapping[str, Any], short_windows: bool) -> Iterator[dict[str, Any]]:
    """Yields configurations, the smallest first; all of them have few layers."""
    full = _full(config)
    if not isinstance(full.get("text_config"), dict):
        yield from _small(full, short_windows)
        return
    parts = {key: value for key, value in full.items() if isinstance(value, dict) and "model_type" in value}
    towers = {key: value | dict.fromkeys(_depths(value), 1) for key, value in parts.items()}
    for text in _small(full["text_config"], short_windows):
        shared = {key: text[key] for key in ("vocab_size", *_SPECIALS) if key in text and key in full}
        yield {**full, **towers, **shared, "text_config": text}


def _small(config: dict[str, Any], short_windows: bool) -> Iterator[dict[str, Any]]:
    """Yields one model's configurations, the smallest first."""
    few = _few_layers(_short_windows(config) if short_windows else config)
    small = few | {key: _VOCABULARY for key in _VOCABULARIES if key in few} | dict.fromkeys(_SPECIALS)
    if head_of(config) != "language":  # encoders count positions from their padding token on
        small["pad_token_id"] = _PADDING
        small |= _few_labels(small)
    yield _narrow(small)
    yield small
    yield few


def _few_labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that name labels, with few of them: each has a row of the head, whatever the others have."""
    labels = [str(label) for label in (config.get("id2label") or {}).values()][:_LABELS]
    return {"id2label": dict(enumerate(labels)), "label2id": {label: id for id, label in enumerate(labels)}}


def _full(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration with the values that its class fills in."""
    found: dict[str, Any] = build_config(config).to_dict()
    return found


def _short_windows(config: dict[str, Any]) -> dict[str, Any]:
    found = dict(config)
    for key in _WINDOWS:
        if isinstance(found.get(key), int) and found[key] > _WINDOW:
            found[key] = _WINDOW
    if isinstance(found.get(_RATES), dict):
        found[_RATES] = {kind: min(rate, _WINDOW) for kind, rate in found[_RATES].items()}
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if "longrope" in str(rope) or "'su'" in str(rope):
        found["original_max_position_embeddings"] = _WINDOW
        for parameters in _rope_parameters(found):
            parameters["original_max_position_embeddings"] = _WINDOW
    if "dynamic" in str(rope):
        found["max_position_embeddings"] = _WINDOW
    return found


def _rope_parameters(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("rope_parameters", "rope_scaling"):
        found = config.get(key)
        if isinstance(found, dict):
            nested = [value for value in found.values() if isinstance(value, dict)]
            yield from nested or [found]


def count_layers(config: Mapping[str, Any]) -> int:
    """Returns how many layers the language model of a config.json has; 0 where that is not told."""
    return max(_depths(_text(_full(config))).values(), default=0)


def fewest_layers(config: Mapping[str, Any]) -> int:
    """Returns how many of its first layers have one of every kind, two at least."""
    return max(_depths(_few_layers(_text(_full(config)))).values(), default=0)


def with_layers(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Returns the configuration of a model of the first layers of another one's language model."""
    full = _full(config)
    return {**full, "text_config": _cut(_text(full), layers)} if _text(full) is not full else _cut(full, layers)


def _text(full: dict[str, Any]) -> dict[str, Any]:
    nested = full.get("text_config")
    return nested if isinstance(nested, dict) else full


def _cut(config: dict[str, Any], kept: int) -> dict[str, Any]:
    counts = _depths(config)
    layers = max(counts.values(), default=0)
    cut = config | dict.fromkeys(counts, kept) | {key: value[:kept] for key, value in _by_layer(config).items()}
    if isinstance(config.get(_SHARED), int):
        cut[_SHARED] = max(0, config[_SHARED] - (layers - kept))
    for key, value in _of_layers(config).items():
        cut[key] = {number: own for number, own in value.items() if number < kept}
    return cut


def _of_layers(config: Mapping[str, Any]) -> dict[str, dict[int, Any]]:
    """Returns the mappings from the number of one of its layers to the layer's own settings."""
    numbers = {str(number) for number in range(max(_depths(config).values(), default=0))}
    return {
        key: {int(number): own for number, own in value.items()}
        for key, value in config.items()
        if isinstance(value, dict)
        and value
        and all(str(number) in numbers and isinstance(own, dict) for number, own in value.items())
    }


def _by_layer(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the lists that have an entry a layer."""
    layers = max(_depths(config).values(), default=0)
    return {key: value for key, value in config.items() if isinstance(value, list) and len(value) == layers > 1}


def _few_layers(config: dict[str, Any]) -> dict[str, Any]:
    """Keeps the first layers, as many as it takes to have one of every kind."""
    counts = _depths(config)
    if not counts:
        return config
    layers, lists, mappings = max(counts.values()), _by_layer(config), _of_layers(config).values()
    own = [str([settings.get(number) for settings in mappings]) for number in range(layers)]
    kinds = list(zip(own, *(map(str, value) for value in lists.values()), strict=True))
    kept = max(2, 1 + max(kinds.index(kind) for kind in set(kinds)))
    if not lists:
        periods = [v for k, v in config.items() if isinstance(v, int) and any(word in k for word in _PERIODS)]
        kept = max([kept, *(period + 1 for period in periods if 0 < period < layers)])
    if not isinstance(config.get(_SHARED), int) or config[_SHARED] == 0:
        return _cut(config, min(kept, layers))
    return _cut(config, min(2 * kept, layers)) | {_SHARED: min(kept, layers - kept)}


def _depths(config: Mapping[str, Any]) -> dict[str, int]:
    """Returns every number of layers by its key."""
    return {key: config[key] for key in _LAYERS if isinstance(config.get(key), int)}


def _narrow(config: dict[str, Any]) -> dict[str, Any]:
    """Keeps few heads of their own size, narrow feed-forward layers and few experts."""
    found = dict(config)
    groups = found.get("num_key_value_heads")
    heads = max([found[key] for key in _HEADS if isinstance(found.get(key), int)], default=0)
    ratio = min(2, heads // groups) if isinstance(groups, int) and groups else 1
    if heads > 2 * ratio:
        found |= {key: found[key] * 2 * ratio // heads for key in _WIDTHS if isinstance(found.get(key), int)}
        found |= {key: 2 * ratio for key in _HEADS if isinstance(found.get(key), int)}
        found |= {"num_key_value_heads": min(2, groups)} if isinstance(groups, int) else {}
    found |= {key: min(found[key], _INPUT) for key in _INPUTS if isinstance(found.get(key), int)}
    found |= {key: min(found[key], 64) for key in _FEED_FORWARD if isinstance(found.get(key), int)}
    found |= {key: [min(size, 64) for size in found[key]] for key in _FEED_FORWARD if isinstance(found.get(key), list)}
    found |= {key: min(found[key], _WINDOW) for key in _CHUNKS if isinstance(found.get(key), int)}
    for key in _EXPERTS:
        if isinstance(found.get(key), int):
            taken = (found.get(k) or 0 for k in _EXPERTS_TAKEN)
            groups = (2 * (found.get(k) or 0) for k in _EXPERT_GROUPS)
            found[key] = min(found[key], max(4, *taken, *groups))
    return found


def _built(settings: dict[str, Any], most_weights: int | None) -> Any:
    built = build_config(settings)
    kind: Any = model_class(built)
    built._experts_implementation = "eager"  # others ask for widths that a twin may not have
    if most_weights is not None:
        with EmptyOnMeta():
            weights = sum(tensor.numel() for tensor in kind._from_config(built).parameters())
        if weights > max(most_weights, ANY_WEIGHTS):
            raise ValueError(f"a small model of this configuration has {weights:,} weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind._from_config(built, dtype=torch.float32)
        empty_towers(model)
        _spread(model)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _spread(model: nn.Module) -> None:
    """Draws matrices that keep the size of what they multiply: what is attended to shows in the logits."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.is_floating_point():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the largest difference as a share of the largest expected magnitude; infinite where one is no number.

    Args:
        found: Numbers of any shape.
        expected: Those that they should be, of the same shape.
    """
    difference = float((found.float() - expected.float()).abs().max() / expected.float().abs().max().clamp(min=1e-9))
    return difference if difference == difference else float("inf")
