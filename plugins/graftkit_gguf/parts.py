"""The parts of which a model consists, by transformers' names and by llama.cpp's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from graftkit.interfaces.architecture import labels_of, skipped_positions

__all__ = [
    "EMBEDDING",
    "OUTPUT",
    "TOKEN_TYPES",
    "Part",
    "Setting",
    "get_setting",
    "key_of",
    "layer",
    "norm",
    "outside",
    "put_setting",
    "sizes",
]

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
"""The names of the embedding and of the output layer in a file."""

TOKEN_TYPES = "tokenizer.ggml.token_type_count"
"""The key of how many types of tokens an encoder has embeddings of."""


@dataclass(frozen=True, slots=True)
class Part:
    """A parameter, or a layer with a weight and perhaps a bias.

    Attributes:
        name: transformers' name, without `model.layers.N.`; of a part outside layers the whole of it.
        stored: The names in the file, without `blk.N.`. Several hold the rows of one parameter, in this order.
        size: The names of the weight's sizes, see `sizes`; of a matrix `[out, in]`.
        bias: The setting of config.json that says whether there is a bias, "always", or "" for a part without one.
        heads: The setting that says of how many heads the rows are, where the architecture rotates pairs.
        plus_one: Whether the file holds one more than transformers, whose layer adds it.
        is_flat: Whether the file has the one row of a matrix as a vector.
        is_parameter: Whether `name` is a parameter's own, to which `.weight` is not added.
        is_outer: Whether it is outside the layers.
        after_padding: Whether its rows are of positions, of which the file has those alone that tokens of texts have.
        not_first: Whether the first layer has none.
    """

    name: str
    stored: tuple[str, ...]
    size: tuple[str, ...]
    bias: str = ""
    heads: str = ""
    plus_one: bool = False
    is_flat: bool = False
    is_parameter: bool = False
    is_outer: bool = False
    after_padding: bool = False
    not_first: bool = False

    def parameters(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yields the kinds of parameters that it has in a model, and the suffix of their names in transformers."""
        yield "weight", "" if self.is_parameter else ".weight"
        if self.bias == "always" or (self.bias and config.get(self.bias)):
            yield "bias", ".bias"

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of each of its tensors in the file, of the parameter's own."""
        if self.is_flat:
            return shape[1:]
        parts = len(self.stored)
        return (*shape[:-2], shape[-2] // parts, shape[-1]) if parts > 1 else shape


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the configuration that the file's metadata holds.

    Attributes:
        key: The key, without the architecture's name; one of the tokenizer's whole.
        path: Its place in config.json, as names with dots between them.
        kind: int, float or bool.
        default: What it is where the file does not say; None where the file has to. Its value is then not written.
    """

    key: str
    path: str
    kind: type
    default: Any = None

    def named(self, architecture: str) -> str:
        """Returns the whole key.

        Args:
            architecture: The architecture's name.
        """
        return key_of(architecture, self.key)


def key_of(architecture: str, key: str) -> str:
    """Returns a whole key.

    Args:
        architecture: The architecture's name.
        key: A key without it; one of the tokenizer's whole.
    """
    return key if key == TOKEN_TYPES else f"{architecture}.{key}"


def layer(name: str, stored: str, out: str, inner: str, bias: str = "", heads: str = "") -> Part:
    """Makes the part that is a linear layer, or an embedding.

    Args:
        name: See `Part`.
        stored: Its name in the file.
        out: The name of the number of its rows.
        inner: The name of their size.
        bias: See `Part`.
        heads: See `Part`.
    """
    return Part(name, (stored,), (out, inner), bias, heads)


def norm(name: str, stored: str, size: str = "hidden", bias: str = "", plus_one: bool = False) -> Part:
    """Makes the part that is a norm.

    Args:
        name: See `Part`.
        stored: Its name in the file.
        size: The name of its size.
        bias: See `Part`.
        plus_one: See `Part`.
    """
    return Part(name, (stored,), (size,), bias, plus_one=plus_one)


def outside(*parts: Part) -> tuple[Part, ...]:
    """Returns parts that are outside the layers.

    Args:
        parts: The parts.
    """
    return tuple(replace(part, is_outer=True) for part in parts)


def get_setting(config: Mapping[str, Any], path: str) -> Any:
    """Returns a setting by its path, or None."""
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def put_setting(config: dict[str, Any], path: str, value: Any) -> None:
    """Puts a setting at its path."""
    *outer, last = path.split(".")
    for name in outer:
        config = config.setdefault(name, {})
    config[last] = value


def sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Returns the sizes that parts are made of.

    Args:
        config: A complete config.json.
    """
    head_dim = config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    inner, experts = config["intermediate_size"], config.get("moe_intermediate_size") or config["intermediate_size"]
    return {
        "one": 1,
        "labels": len(labels_of(config)),
        "vocabulary": config["vocab_size"],
        "positions": config["max_position_embeddings"] - skipped_positions(config),
        "types": config.get("type_vocab_size") or 0,
        "hidden": config["hidden_size"],
        "queries": queries,
        "keys": keys,
        "queries, keys and values": queries + 2 * keys,
        "head": head_dim,
        "inner": inner,
        "twice inner": 2 * inner,
        "experts": config.get("num_local_experts") or config.get("num_experts") or 0,
        "inner of an expert": experts,
        "twice inner of an expert": 2 * experts,
        "inner of the shared expert": config.get("shared_expert_intermediate_size") or 0,
    }
