"""Maps a GGUF file of the llama architecture to `transformers`: configuration, names of weights, order of rows.

The metadata keys and tensor names are those of `docs/gguf.md` in the ggml project. Models of the architecture
rotate neighbouring pairs of a head's dimensions there, but its two halves in `transformers`; so the rows of q
and k stand in another order in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError

from graftkit_gguf.header import GgufHeader, GgufTensor
from graftkit_gguf.metadata import Metadata

if TYPE_CHECKING:
    import numpy as np

__all__ = ["StoredWeight", "half_split_rows", "llama_config", "llama_weights"]

_SUPPORTED = (
    "Supported are dense models of the llama architecture with plain rotary embeddings and without biases, "
    "whole in one file."
)

_READ_KEYS = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.dimension_count",
    }
)
# These say nothing that would change what is computed.
_REMARKS = frozenset({"vocab_size", "tensor_data_layout", "rope.scaling.original_context_length"})
# Any other key is refused unless its value switches nothing on.
_OFF: tuple[object, ...] = (0, "none")
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "rope.scaling.factor": (0, 1),
    "rope.scale_linear": (0, 1),
    "attention.causal": (True,),
}

_ROLE_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight of the model and its tensor in the file.

    Attributes:
        tensor: Its place in the file.
        shape: As `transformers` has it: `[out, in]`, `[vocabulary, hidden]` or `[hidden]`.
        heads: The number of heads whose rows have to be put in another order; 0 for none.
    """

    tensor: GgufTensor
    shape: tuple[int, ...]
    heads: int


def llama_config(header: GgufHeader) -> dict[str, Any]:
    """Returns the keys of the model's `config.json`.

    Raises:
        ModelError: Another architecture, one of its variants that is not supported, or metadata that is
            missing or contradicts itself.
    """
    metadata = Metadata(header.path, header.metadata)
    _refuse_other_kinds(metadata)
    _refuse_variants(metadata)
    shape = _shape(metadata)
    vocabulary = _vocabulary(header)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        **shape,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": metadata.integer("llama.context_length", least=1),
        "rms_norm_eps": _shortest(metadata.positive("llama.attention.layer_norm_rms_epsilon")),
        "rope_parameters": _rope(metadata),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **{f"{role}_token_id": _token_id(metadata, key, vocabulary) for role, key in _ROLE_KEYS.items()},
    }


def llama_weights(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, StoredWeight]:
    """Returns every weight under its `transformers` name, in the file's order.

    Args:
        header: The file's header.
        config: What `llama_config` made of it.

    Raises:
        ModelError: A tensor is missing, of another shape than the configuration asks for, or left over.
    """
    wanted = _names(header, config)
    _refuse_left_over(header, wanted)
    shapes = _shapes(config)
    return {name: _weight(header, tensor, shapes[name.rsplit(".", 2)[-2]], config) for tensor, name in wanted.items()}


def half_split_rows(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorders the rows of q or k for `transformers`, whose rotary embedding rotates halves, not neighbours.

    Args:
        weight: `[heads * head_dim, in]`, a head's rows in the order 0, head_dim/2, 1, head_dim/2 + 1, ...
        heads: The number of heads whose rows these are.

    Returns:
        The same rows, a head's in the order 0, 1, 2, ...: a copy.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _refuse_other_kinds(metadata: Metadata) -> None:
    if metadata.text("general.type", "model") != "model":
        raise _unsupported(metadata, f"this file holds a GGUF {metadata.shown('general.type')}, not a model")
    if metadata.text("general.architecture") != "llama":
        shown = metadata.shown("general.architecture")
        raise _unsupported(metadata, f"the architecture {shown} is not supported")
    if metadata.integer("split.count", 1) > 1:
        raise _unsupported(metadata, "this is one of several files that make up a model")


def _refuse_variants(metadata: Metadata) -> None:
    for key, value in metadata.values.items():
        name = key.removeprefix("llama.")
        if name == key or name in _READ_KEYS or name in _REMARKS:
            continue
        if value not in _NEUTRAL.get(name, _OFF):
            raise _unsupported(metadata, f"{key[:80]!r} is {metadata.shown(key)}, which is not supported")


def _unsupported(metadata: Metadata, message: str) -> ModelError:
    return ModelError(message, where=str(metadata.path), hint=_SUPPORTED)


def _shape(metadata: Metadata) -> dict[str, int]:
    hidden = metadata.integer("llama.embedding_length", least=1)
    heads = metadata.integer("llama.attention.head_count", least=1)
    groups = metadata.integer("llama.attention.head_count_kv", heads, least=1)
    if hidden % heads or heads % groups:
        raise _unsupported(metadata, f"{heads} heads and {groups} of keys and values don't divide a width of {hidden}")
    return {
        "hidden_size": hidden,
        "intermediate_size": metadata.integer("llama.feed_forward_length", least=1),
        "num_hidden_layers": metadata.integer("llama.block_count", least=1),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": _head_dim(metadata, hidden // heads),
    }


def _head_dim(metadata: Metadata, default: int) -> int:
    head_dim = metadata.integer("llama.attention.key_length", default, least=1)
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if metadata.integer(key, head_dim) != head_dim:
            raise _unsupported(metadata, f"{key} is {metadata.shown(key)}, but a head has {head_dim} dimensions")
    if head_dim % 2:
        raise _unsupported(metadata, f"a head has {head_dim} dimensions, an odd number")
    return head_dim


def _rope(metadata: Metadata) -> dict[str, Any]:
    theta = metadata.positive("llama.rope.freq_base", 10_000.0)
    return {"rope_type": "default", "rope_theta": _shortest(theta)}


def _shortest(value: float) -> float:
    """Returns the shortest decimal with the same float32, such as 1e-05 for 9.9999997e-06."""
    for digits in range(1, 9):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return value


def _vocabulary(header: GgufHeader) -> int:
    tensor = header.tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise ModelError("it has no token_embd.weight of two dimensions", where=str(header.path), hint=_SUPPORTED)
    return tensor.shape[1]


def _token_id(metadata: Metadata, key: str, vocabulary: int) -> int | None:
    if key not in metadata:
        return None
    id_ = metadata.integer(key)
    if id_ >= vocabulary:
        raise metadata.error(key, f"but token_embd.weight has {vocabulary:,} rows")
    return id_


def _names(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the file's name -> the model's name of every weight of this configuration, in the file's order."""
    wanted: dict[str, str] = {}
    for tensor, name in _expected(config):
        if tensor not in header.tensors:
            raise ModelError(f"the tensor {tensor!r} is missing", where=str(header.path), hint=_SUPPORTED)
        wanted[tensor] = name
    return {tensor: wanted[tensor] for tensor in header.tensors if tensor in wanted}


def _expected(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for tensor, name in _OUTER.items():
        if tensor != "output.weight" or not config["tie_word_embeddings"]:
            yield tensor, name
    for layer in range(config["num_hidden_layers"]):
        for tensor, name in _LAYER.items():
            yield f"blk.{layer}.{tensor}.weight", f"model.layers.{layer}.{name}.weight"


def _refuse_left_over(header: GgufHeader, wanted: Iterable[str]) -> None:
    left_over = sorted(set(header.tensors) - set(wanted))
    if left_over:
        raise ModelError(
            f"it has tensors that such a model has no place for: {_few(left_over)}",
            where=str(header.path),
            hint=_SUPPORTED,
        )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight by the last part of its layer's name."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    norms = dict.fromkeys(("norm", "input_layernorm", "post_attention_layernorm"), (hidden,))
    return norms | {
        "embed_tokens": (config["vocab_size"], hidden),
        "lm_head": (config["vocab_size"], hidden),
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def _weight(header: GgufHeader, name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> StoredWeight:
    tensor = header.tensors[name]
    if tensor.shape[::-1] != shape:
        raise ModelError(
            f"the tensor {name!r} has the shape {list(tensor.shape[::-1])} where its configuration asks for "
            f"{list(shape)}",
            where=str(header.path),
            hint=_SUPPORTED,
        )
    heads = {"attn_q.weight": "num_attention_heads", "attn_k.weight": "num_key_value_heads"}
    key = heads.get(name.partition(".")[2].partition(".")[2])
    return StoredWeight(tensor, shape, config[key] if key else 0)
