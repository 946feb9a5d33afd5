"""How one of llama.cpp's architectures is written and read: settings and weights, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import head_of, skipped_positions

from graftkit_gguf.parts import OUTPUT, Part, Setting, get_setting, key_of, put_setting, sizes
from graftkit_gguf.pooling import pooling_metadata
from graftkit_gguf.rope import rope_factors, rope_metadata

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["SIZES", "Architecture", "Complete", "complete_config", "in_own_names"]

Complete = Mapping[str, Any]
"""A config.json in today's names, with every setting that it has by default."""

SIZES = (
    Setting("context_length", "max_position_embeddings", int),
    Setting("embedding_length", "hidden_size", int),
    Setting("block_count", "num_hidden_layers", int),
    Setting("feed_forward_length", "intermediate_size", int),
    Setting("attention.head_count", "num_attention_heads", int),
    Setting("attention.head_count_kv", "num_key_value_heads", int),
    Setting("attention.key_length", "head_dim", int),
    Setting("attention.value_length", "head_dim", int),
    Setting("vocab_size", "vocab_size", int),
)


_OUTPUT_LAYER = "lm_head"


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp's, and the model of transformers that it computes.

    Attributes:
        name: The value of `general.architecture`.
        model: transformers' `model_type` and class.
        parts: The parts outside layers and those of each layer.
        settings: What the metadata says besides sizes.
        fixed: Settings of config.json that llama.cpp knows in one value alone.
        lacks: Says what a complete config.json has that llama.cpp has not, or "".
        ropes: The types of rotary embedding that there may be; none where it has embeddings of positions.
        rope: The place of the rotary embedding's settings in config.json.
        implied: Gives the settings of config.json that follow from those that a file has.
        rotates_pairs: Whether it rotates neighbouring dimensions, where transformers rotates halves: then the rows of q
            and k stand in another order in the file.
        rotates_a_part: Whether a part of a head's dimensions may be rotated.
        ties: Whether the output layer may be the embedding: else the file has it once more.
        is_square: Whether the widths of all heads have to add up to the model's.
        scores: What a classifier has in the place of the output layer; nothing where llama.cpp computes no such scores.
        gives_shares: Whether llama.cpp gives the softmax of those scores, and not the scores.
        body: What the names of all weights but the output layer's begin with, which they do not where a model is its
            body alone, as one is that gives vectors.
        layers: What the names of the layers' weights begin with.
        constants: Keys of the metadata that are the same for every such model.
        needless: What the names of tensors begin with that a file has no place for, since no vector is made of them.
    """

    name: str
    model: tuple[str, str]
    parts: tuple[Part, ...]
    settings: tuple[Setting, ...]
    fixed: Mapping[str, Any]
    lacks: Callable[[Complete], str] = lambda config: ""
    ropes: tuple[str, ...] = ("default",)
    rope: str = "rope_parameters"
    implied: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    rotates_pairs: bool = False
    rotates_a_part: bool = False
    ties: bool = True
    is_square: bool = False
    scores: tuple[Part, ...] = ()
    gives_shares: bool = True
    body: str = "model."
    layers: str = "model.layers."
    constants: Mapping[str, Any] = field(default_factory=dict)
    needless: tuple[str, ...] = ()

    @property
    def decodes(self) -> bool:
        """Whether there is an output layer, which says what token comes next."""
        return any(part.name == _OUTPUT_LAYER for part in self.parts)

    @property
    def is_mixture(self) -> bool:
        """Whether there are experts."""
        return any("experts" in part.size for part in self.parts)

    def metadata(self, config: Complete) -> dict[str, Any]:
        """Returns the keys that llama.cpp reads.

        Args:
            config: See `complete_config`.

        Raises:
            ModelError: The model has a part that its architecture in llama.cpp lacks.
        """
        self._refuse(config)
        config = {**config, "max_position_embeddings": sizes(config)["positions"]}
        found: dict[str, Any] = {"general.architecture": self.name}
        for setting in (*SIZES, *self.settings):
            value = get_setting(config, setting.path)
            if value is None:
                raise ModelError(f"a model without {setting.path} can't be written as GGUF for this architecture")
            found[setting.named(self.name)] = setting.kind(value)
        others = {**self.constants, **self._rope_metadata(config), **pooling_metadata(config, shares=self.gives_shares)}
        return found | {key_of(self.name, key): value for key, value in others.items()}

    def _rope_metadata(self, config: Complete) -> dict[str, Any]:
        if not self.ropes:
            return {}
        rope = get_setting(config, self.rope)
        rotated = _rotated(config, rope)
        if rotated != config["head_dim"] and not self.rotates_a_part:
            raise ModelError(
                f"rotating {rotated} of {config['head_dim']} dimensions can't be written as GGUF for this architecture"
            )
        found = rope_metadata(rope, self.ropes, config["max_position_embeddings"])
        return {"rope.dimension_count": rotated, **found}

    def _refuse(self, config: Complete) -> None:
        for path, value in self.fixed.items():
            if get_setting(config, path) not in (value, None):
                raise ModelError(f"{path} = {get_setting(config, path)} can't be written as GGUF for this architecture")
        lacking = self.lacks(config)
        if self.is_square and config["num_attention_heads"] * config["head_dim"] != config["hidden_size"]:
            lacking = (
                f"{config['num_attention_heads']} heads of {config['head_dim']} in a width of {config['hidden_size']}"
            )
        if lacking:
            raise ModelError(f"{lacking} can't be written as GGUF for this architecture")

    def tensor(self, name: str, values: torch.Tensor, config: Mapping[str, Any]) -> tuple[str, torch.Tensor]:
        """Returns a weight's name and value in the file.

        Args:
            name: Its name in transformers.
            values: The weight, `[out, in]` or `[size]`.
            config: The keys of the model's `config.json`.

        Raises:
            ModelError: Such a model has no weight of this name, or it is several in the file.
        """
        found = list(self.tensors(name, values, config))
        if len(found) > 1:
            raise ModelError(f"the weight '{name}' is several tensors in a GGUF file of the architecture {self.name}")
        return found[0]

    def tensors(self, name: str, values: torch.Tensor, config: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the names and values that a weight has in the file: an expert stack's halves are two.

        Args:
            name: Its name in transformers.
            values: The weight, `[out, in]`, `[size]` or `[experts, out, in]`.
            config: The keys of the model's `config.json`.

        Raises:
            ModelError: Such a model has no weight of this name.
        """
        layer, part, kind = self._place(f"{self.body}{name}" if head_of(config) == "embedding" else name)
        if part.heads and self.rotates_pairs:
            heads = config.get(part.heads) or config["num_attention_heads"]
            values = _paired_rows(values, heads)
        if part.plus_one:
            values = values + 1
        if part.is_flat:
            values = values.reshape(-1)
        if part.after_padding:
            values = values[skipped_positions(config) :]
        pieces = values.chunk(len(part.stored), dim=-2) if len(part.stored) > 1 else [values]
        for stored, piece in zip(part.stored, pieces, strict=True):
            yield f"{layer}{stored}.{kind}", piece

    def _place(self, name: str) -> tuple[str, Part, str]:
        """Returns what stands before the names of a weight's part in the file, the part, and "weight" or "bias"."""
        number, _, inner = name.removeprefix(self.layers).partition(".")
        inside = name.startswith(self.layers) and number.isdigit()
        found = self._by_name.get(inner if inside else name)
        if found is None:
            raise ModelError(f"the weight '{name}' has no name in a GGUF file of the architecture {self.name}")
        return (f"blk.{number}." if inside else "", *found)

    @cached_property
    def _by_name(self) -> dict[str, tuple[Part, str]]:
        found = {}
        for part in (*self.parts, *self.scores):
            found[part.name if part.is_parameter else f"{part.name}.weight"] = (part, "weight")
            if part.bias:
                found[f"{part.name}.bias"] = (part, "bias")
        return found

    def weights(self, config: Complete) -> Iterator[tuple[str, Part, str, tuple[str, ...]]]:
        """Yields for every weight its name in transformers, its part, "weight" or "bias", and its tensors' names.

        Args:
            config: See `complete_config`; where `tie_word_embeddings` holds there is no output layer, nor has a
                classifier one.
        """
        head = head_of(config)
        for name, part, kind, stored in self._weights(config, self.scores if head == "sequence" else ()):
            yield name.removeprefix(self.body) if head == "embedding" else name, part, kind, stored

    def _weights(self, config: Complete, scores: tuple[Part, ...]) -> Iterator[tuple[str, Part, str, tuple[str, ...]]]:
        for part in (*(part for part in self.parts if part.is_outer), *scores):
            if part.name != _OUTPUT_LAYER or not (config["tie_word_embeddings"] or scores):
                for kind, suffix in part.parameters(config):
                    yield f"{part.name}{suffix}", part, kind, tuple(f"{stored}.{kind}" for stored in part.stored)
        inner = [part for part in self.parts if not part.is_outer]
        for layer in range(config["num_hidden_layers"]):
            for part in (part for part in inner if layer or not part.not_first):
                for kind, suffix in part.parameters(config):
                    stored = tuple(f"blk.{layer}.{name}.{kind}" for name in part.stored)
                    yield f"{self.layers}{layer}.{part.name}{suffix}", part, kind, stored

    def stored_shapes(self, config: Complete) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields the name and shape of every tensor of the file that a model is written to, factors of ropes left out.

        Args:
            config: See `complete_config`.
        """
        known = sizes(config)
        for _, part, kind, stored in self.weights({**config, "tie_word_embeddings": self.ties_in_file(config)}):
            shape = tuple(known[size] for size in (part.size if kind == "weight" else part.size[:1]))
            for name in stored:
                yield name, part.stored_shape(shape)

    def fits(self, tensors: Container[str]) -> bool:
        """Tells whether a file has all parts outside layers; an output layer may be missing.

        Args:
            tensors: The names of its tensors.
        """
        needed = [f"{name}.weight" for part in self.parts if part.is_outer for name in part.stored]
        return all(name in tensors for name in needed if name != OUTPUT)

    def ties_in_file(self, config: Mapping[str, Any]) -> bool:
        """Tells whether a file has the embedding alone, which is the output layer, too."""
        return self.ties and bool(config.get("tie_word_embeddings"))

    def factors(self, config: Complete) -> dict[str, np.ndarray[Any, Any]]:
        """Returns by what frequencies of the rotary embedding are divided, `[rotated / 2]`, by the tensors' names."""
        rope = get_setting(config, self.rope) if self.ropes else None
        return rope_factors(rope, _rotated(config, rope)) if rope else {}

    def empty_config(self) -> dict[str, Any]:
        """Returns what config.json says of every model of the architecture."""
        model_type, class_name = self.model
        found: dict[str, Any] = {"architectures": [class_name], "model_type": model_type}
        for path, value in self.fixed.items():
            put_setting(found, path, value)
        return found


def _rotated(config: Complete, rope: Mapping[str, Any]) -> int:
    """Returns how many dimensions of a head are rotated."""
    return int(config["head_dim"] * rope.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1))


_OF_EVERY_MODEL = frozenset(
    {
        *(setting.path for setting in SIZES if setting.path not in ("head_dim", "num_key_value_heads")),
        *("hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings", "rope_parameters"),
    }
)
"""All that is read of a llama's config.json."""


def complete_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config.json in today's names, with every setting that it has by default in transformers.

    A model of vectors has no output layer: where llama.cpp asks for one, it is given the embedding.

    That takes transformers' own class, which is imported in seconds; a llama's that says all is taken as it is.
    """
    if config.get("model_type") == "llama" and config.keys() >= _OF_EVERY_MODEL:
        found = dict(config)
    else:
        found = _with_defaults(config)
        for name, own in _OWN_NAMES.get(config["model_type"], {}).items():
            found[name] = found[own]
    found["num_key_value_heads"] = found.get("num_key_value_heads") or found["num_attention_heads"]
    found["head_dim"] = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    found["tie_word_embeddings"] = found.get("tie_word_embeddings") or head_of(config) == "embedding"
    return found


_OWN_NAMES: Mapping[str, Mapping[str, str]] = {
    "distilbert": {
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_act": "activation",
    }
}
"""Of each `model_type` what its config.json calls settings that others have, too, by their names there."""


def in_own_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config.json with the names that its architecture has for settings, beside those that others have."""
    own = _OWN_NAMES.get(config["model_type"], {})
    return {**config, **{own[name]: config[name] for name in own if name in config}}


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    plain = {key: value for key, value in config.items() if key not in ("architectures", "transformers_version")}
    found: dict[str, Any] = CONFIG_MAPPING[config["model_type"]](**plain).to_dict()
    return {**found, "architectures": config.get("architectures")}


def _paired_rows(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorders the rows of q or k from a head's two halves to its neighbouring pairs."""
    pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
