"""Maps a GGUF file to `transformers`: configuration, names of weights, order of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, with_head

from graftkit_gguf.architectures import SIZES, Architecture, in_own_names
from graftkit_gguf.families import architecture_named
from graftkit_gguf.header import GgufHeader, GgufTensor
from graftkit_gguf.metadata import NOT_SUPPORTED, Metadata
from graftkit_gguf.parts import OUTPUT, Setting, get_setting, key_of, put_setting, sizes
from graftkit_gguf.pooling import SCORE_KEYS, SCORES, VECTOR_KEYS, read_labels, read_pooling
from graftkit_gguf.rope import LONG_FACTORS, ROPE_KEYS, factor_tensors, rope_from_factors, rope_from_metadata, shortest
from graftkit_gguf.tensor_types import KEPT_TYPES
from graftkit_gguf.vocabulary_keys import ROLE_KEYS

if TYPE_CHECKING:
    import numpy as np

__all__ = ["StoredWeight", "architecture_of_file", "model_config", "model_weights", "original_context"]

# These say nothing that would change what is computed.
_REMARKS = frozenset({"vocab_size", "tensor_data_layout"})
# Any other key is refused unless its value switches nothing on.
_OFF: tuple[object, ...] = (0, "none")
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "rope.scale_linear": (0, 1),
    "attention.causal": (True,),
    "hidden_activation": ("gelu",),  # ModernBERT's, which alone asks for it
}
_ROLES = ("bos", "eos", "pad")
"""Those that a config.json of every architecture has."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight of the model and where the file has it.

    Attributes:
        tensors: Its tensors, whose rows follow one another.
        shape: As `transformers` has it: `[out, in]`, `[vocabulary, hidden]`, `[hidden]` or `[experts, out, in]`.
        heads: The number of heads whose rows have to be put in another order; 0 for none.
        plus_one: Whether the file holds one more.
    """

    tensors: tuple[GgufTensor, ...]
    shape: tuple[int, ...]
    heads: int
    plus_one: bool

    @property
    def dtype(self) -> str:
        """The type that it is stored in, such as "Q4_1"."""
        return self.tensors[0].type.name

    @property
    def by_matrix(self) -> bool:
        """Whether it is a stack of matrices, each of which can be taken out of the file in its own blocks."""
        alike = {tensor.type.name for tensor in self.tensors} == {self.dtype}
        return len(self.shape) == 3 and alike and self.dtype in KEPT_TYPES and not self.plus_one

    @property
    def nbytes(self) -> int:
        """The bytes that it takes in the file."""
        return sum(tensor.nbytes for tensor in self.tensors)


def architecture_of_file(header: GgufHeader) -> Architecture:
    """Returns the architecture of a file.

    Raises:
        ModelError: It holds no whole model, or one of another architecture.
    """
    metadata = Metadata(header.path, header.metadata)
    if metadata.text("general.type", "model") != "model":
        raise metadata.refused(f"this file holds a GGUF {metadata.shown('general.type')}, not a model")
    name = metadata.text("general.architecture")
    experts = metadata.integer(f"{name}.expert_count", 0)
    found = architecture_named(name, bool(experts), header.tensors) or architecture_named(name, False, header.tensors)
    if found is None:
        raise metadata.refused(f"the architecture {metadata.shown('general.architecture')} is not supported")
    if metadata.integer("split.count", 1) > 1:
        raise metadata.refused("this is one of several files that make up a model")
    return found


def model_config(header: GgufHeader) -> dict[str, Any]:
    """Returns the keys of the model's `config.json`.

    Raises:
        ModelError: Another architecture, one of its variants that is not supported, or metadata that is
            missing or contradicts itself.
    """
    architecture = architecture_of_file(header)
    metadata = Metadata(header.path, header.metadata)
    labels = read_labels(metadata, architecture.name) if architecture.scores and SCORES in header.tensors else []
    pooled_by = None if labels else read_pooling(metadata, architecture.name)
    _refuse_variants(metadata, architecture, SCORE_KEYS if labels else VECTOR_KEYS if pooled_by else frozenset())
    config = architecture.empty_config()
    vocabulary = _vocabulary(header)
    config |= _sizes(metadata, architecture.name) | {"vocab_size": vocabulary}
    for setting in architecture.settings:
        put_setting(config, setting.path, _value(metadata, architecture.name, setting))
    if architecture.ropes:
        _put_rope(config, header, metadata, architecture)
    config["tie_word_embeddings"] = OUTPUT not in header.tensors or _output_is_needless(architecture, pooled_by)
    for part in architecture.parts:
        if part.bias not in ("", "always"):
            there = f"blk.0.{part.stored[0]}.bias" in header.tensors
            config[part.bias] = there or config.get(part.bias, False)
    config |= {f"{role}_token_id": _token_id(metadata, ROLE_KEYS[role], vocabulary) for role in _ROLES}
    config = in_own_names(config | architecture.implied(config))
    if pooled_by:
        return with_head(config, "embedding", pooled_by=pooled_by)
    return with_head(config, "sequence", labels) if labels else config


def model_weights(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, StoredWeight]:
    """Returns every weight under its `transformers` name, in the file's order.

    Args:
        header: The file's header.
        config: What `model_config` made of it.

    Raises:
        ModelError: A tensor is missing, of another shape than the configuration asks for, or left over.
    """
    architecture = architecture_of_file(header)
    known = sizes(config)
    found: dict[str, StoredWeight] = {}
    for name, part, kind, stored in architecture.weights(config):
        tensors = tuple(_tensor(header, name) for name in stored)
        shape = tuple(known[size] for size in (part.size if kind == "weight" else part.size[:1]))
        for tensor in tensors:
            _refuse_other_shape(header, tensor, part.stored_shape(shape))
        heads = int(config[part.heads]) if part.heads and architecture.rotates_pairs else 0
        found[name] = StoredWeight(tensors, shape, heads, part.plus_one)
    used = {tensor.name for weight in found.values() for tensor in weight.tensors}
    needless = {OUTPUT} if _output_is_needless(architecture, config.get(EMBEDDING_POOLING)) else set()
    _refuse_left_over(header, used | factor_tensors(architecture.ropes) | needless)
    places = {name: place for place, name in enumerate(header.tensors)}
    return dict(sorted(found.items(), key=lambda item: places[item[1].tensors[0].name]))


def _output_is_needless(architecture: Architecture, pooled_by: str | None) -> bool:
    """Tells whether a model that gives vectors has an output layer for llama.cpp's sake alone, which asks for one."""
    return pooled_by is not None and not architecture.ties


def _refuse_variants(metadata: Metadata, architecture: Architecture, more: frozenset[str]) -> None:
    for key, value in architecture.constants.items():
        found = metadata.values.get(whole := key_of(architecture.name, key))
        if (shortest(found) if isinstance(found, float) else found) != value:
            raise metadata.refused(f"'{whole}' is not {value}, as it is of every such model")
    known = {setting.key for setting in (*SIZES, *architecture.settings)}
    read = more | ROPE_KEYS | known | architecture.constants.keys()
    for key, value in metadata.values.items():
        name = key.removeprefix(f"{architecture.name}.")
        if name == key or name in read or name in _REMARKS:
            continue
        if value not in _NEUTRAL.get(name, _OFF):
            raise metadata.refused(f"{key[:80]!r} is {metadata.shown(key)}, which is not supported")


def _sizes(metadata: Metadata, name: str) -> dict[str, int]:
    hidden = metadata.integer(f"{name}.embedding_length", least=1)
    heads = metadata.integer(f"{name}.attention.head_count", least=1)
    groups = metadata.integer(f"{name}.attention.head_count_kv", heads, least=1)
    if heads % groups or (hidden % heads and f"{name}.attention.key_length" not in metadata):
        message = f"{heads} heads and {groups} of keys and values don't divide a width of {hidden}"
        raise metadata.refused(message)
    head_dim = metadata.integer(f"{name}.attention.key_length", hidden // heads, least=1)
    key = f"{name}.attention.value_length"
    if metadata.integer(key, head_dim) != head_dim:
        raise metadata.refused(f"{key} is {metadata.shown(key)}, but a head has {head_dim} dimensions")
    if head_dim % 2:
        raise metadata.refused(f"a head has {head_dim} dimensions, an odd number")
    return {
        "max_position_embeddings": metadata.integer(f"{name}.context_length", least=1),
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{name}.feed_forward_length", least=1),
        "num_hidden_layers": metadata.integer(f"{name}.block_count", least=1),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
    }


def _value(metadata: Metadata, name: str, setting: Setting) -> int | float:
    key = setting.named(name)
    if setting.kind is int:
        return metadata.integer(key, setting.default, least=1)
    return shortest(metadata.positive(key, setting.default))


def _put_rope(config: dict[str, Any], header: GgufHeader, metadata: Metadata, architecture: Architecture) -> None:
    """Adds what the file says of rotary embeddings to their `rope_theta`."""
    key, head_dim = f"{architecture.name}.rope.dimension_count", config["head_dim"]
    rotated = metadata.integer(key, head_dim, least=1)
    if rotated > head_dim or rotated % 2 or (rotated != head_dim and not architecture.rotates_a_part):
        raise metadata.refused(f"{key} is {metadata.shown(key)}, but a head has {head_dim} dimensions")
    theta = get_setting(config, architecture.rope)
    found = {**rope_from_metadata(metadata, architecture.name, architecture.ropes), **theta}
    names = factor_tensors(architecture.ropes) & header.tensors.keys()
    if names or found["rope_type"] == "longrope":
        original = metadata.integer(f"{architecture.name}.rope.scaling.original_context_length", 0) or None
        tensors = {name: _factors(header, name, rotated) for name in sorted(names)}
        found = rope_from_factors(tensors, found, original, str(header.path))
    if rotated != head_dim:
        share = rotated / head_dim
        found["partial_rotary_factor"] = share if int(head_dim * share) == rotated else math.nextafter(share, 1)
    put_setting(config, architecture.rope, found)
    if found["rope_type"] == "longrope":  # where Phi 3's own class looks for it
        config["original_max_position_embeddings"] = found["original_max_position_embeddings"]


def original_context(header: GgufHeader) -> int | None:
    """Returns the length beyond which llama.cpp takes other factors of the rotary embedding; None without any."""
    metadata = Metadata(header.path, header.metadata)
    if LONG_FACTORS not in header.tensors:
        return None
    return metadata.integer(f"{metadata.text('general.architecture')}.rope.scaling.original_context_length")


def _factors(header: GgufHeader, name: str, rotated: int) -> np.ndarray[Any, Any]:
    import numpy as np

    tensor = header.tensors[name]
    _refuse_other_shape(header, tensor, (rotated // 2,))
    if tensor.type.name != "F32":
        raise ModelError(f"the tensor {name!r} is of the type {tensor.type.name}", where=str(header.path))
    with header.path.open("rb") as file:
        file.seek(tensor.offset)
        return np.frombuffer(file.read(2 * rotated), "<f4")


def _vocabulary(header: GgufHeader) -> int:
    tensor = header.tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise ModelError("it has no token_embd.weight of two dimensions", where=str(header.path), hint=NOT_SUPPORTED)
    return tensor.shape[1]


def _token_id(metadata: Metadata, key: str, vocabulary: int) -> int | None:
    if key not in metadata:
        return None
    id_ = metadata.integer(key)
    if id_ >= vocabulary:
        raise metadata.error(key, f"but token_embd.weight has {vocabulary:,} rows")
    return id_


def _tensor(header: GgufHeader, name: str) -> GgufTensor:
    if name not in header.tensors:
        raise ModelError(f"the tensor {name!r} is missing", where=str(header.path), hint=NOT_SUPPORTED)
    return header.tensors[name]


def _refuse_other_shape(header: GgufHeader, tensor: GgufTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape[::-1] != shape:
        raise ModelError(
            f"the tensor {tensor.name!r} has the shape {list(tensor.shape[::-1])} where its configuration asks for "
            f"{list(shape)}",
            where=str(header.path),
            hint=NOT_SUPPORTED,
        )


def _refuse_left_over(header: GgufHeader, wanted: Iterable[str]) -> None:
    left_over = sorted(set(header.tensors) - set(wanted))
    if left_over:
        raise ModelError(
            f"it has tensors that such a model has no place for: {_few(left_over)}",
            where=str(header.path),
            hint=NOT_SUPPORTED,
        )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
