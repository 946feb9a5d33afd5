"""Checks a GGUF file of an export before llama.cpp sees it: it is one that graftkit may have written, and no other.

llama.cpp trusts what a file says of itself: it aborts, or takes any time and memory, where that contradicts itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from graftkit.errors import ModelError

from graftkit_gguf.architectures import ARCHITECTURES
from graftkit_gguf.header import GgufHeader
from graftkit_gguf.metadata import Metadata
from graftkit_gguf.splitting import SPLITTINGS

__all__ = ["check_exported"]

_AGAIN = "Export it again, or take the export from where it came from."
_STORED = frozenset({"F32", "F16", "BF16", "Q8_0"})
_SIZES = ("embedding_length", "block_count", "feed_forward_length", "vocab_size")
_HEADS = ("attention.head_count", "attention.head_count_kv")
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_NUMBERS = ("attention.layer_norm_rms_epsilon", "rope.freq_base")
_SCALING = ("rope.scaling.type", "rope.scaling.factor")
_SETTINGS = frozenset({"context_length", *_SIZES, *_HEADS, *_HEAD_SIZES, *_NUMBERS, *_SCALING})
_IDS = frozenset(f"tokenizer.ggml.{role}_token_id" for role in ("bos", "eos", "unknown", "padding", "eot"))
_FLAGS = frozenset({"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"})
_LISTS = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"})
_TEXTS = frozenset({"general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"})
_TOKEN_TYPES = frozenset({1, 3, 4, 5})
_LARGEST_SIZE = 2**24
"""Of a model's sizes, the context's included: those of the largest models are a tenth of it."""


def check_exported(header: GgufHeader) -> int:
    """Makes sure that a file holds what an export holds, no less and no more, and returns the number of its tokens.

    Raises:
        ModelError: It doesn't.
    """
    metadata = Metadata(header.path, header.metadata)
    name = metadata.text("general.architecture")
    _one_of(metadata, "general.architecture", name, {known.name for known in ARCHITECTURES.values()})
    own = {f"{name}.{key}" for key in _SETTINGS}
    strange = sorted(header.metadata.keys() - own - _IDS - _FLAGS - _LISTS - _TEXTS)
    if strange:
        raise _error(header, f"its metadata has {strange[0][:80]!r}, which no export has")
    sizes = {key: _size(metadata, f"{name}.{key}") for key in (*_SIZES, *_HEADS, *_HEAD_SIZES, "context_length")}
    _check_heads(header, sizes)
    for key in _NUMBERS:
        metadata.positive(f"{name}.{key}")
    if f"{name}.rope.scaling.type" in metadata:
        _one_of(metadata, f"{name}.rope.scaling.type", metadata.text(f"{name}.rope.scaling.type"), {"linear"})
        metadata.positive(f"{name}.rope.scaling.factor")
    _check_tokenizer(metadata, sizes["vocab_size"])
    _check_tensors(header, sizes)
    return sizes["vocab_size"]


def _error(header: GgufHeader, message: str) -> ModelError:
    return ModelError(message, where=str(header.path), hint=_AGAIN)


def _one_of(metadata: Metadata, key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise metadata.error(key, f"none of {', '.join(sorted(known))}")


def _size(metadata: Metadata, key: str) -> int:
    size = metadata.integer(key, least=1)
    if size > _LARGEST_SIZE:
        raise metadata.error(key, f"more than {_LARGEST_SIZE:,}")
    return size


def _check_heads(header: GgufHeader, sizes: Mapping[str, int]) -> None:
    heads, groups = (sizes[key] for key in _HEADS)
    if heads % groups:
        raise _error(header, f"{groups} heads of keys and values do not divide {heads} heads")
    if len({sizes[key] for key in _HEAD_SIZES}) > 1 or sizes["rope.dimension_count"] % 2:
        raise _error(header, f"{', '.join(_HEAD_SIZES)} are not one even number")


def _check_tokenizer(metadata: Metadata, vocabulary: int) -> None:
    _one_of(metadata, "tokenizer.ggml.model", metadata.text("tokenizer.ggml.model"), {"gpt2"})
    _one_of(metadata, "tokenizer.ggml.pre", metadata.text("tokenizer.ggml.pre"), SPLITTINGS)
    if "tokenizer.chat_template" in metadata:
        metadata.text("tokenizer.chat_template")
    tokens, types = metadata.texts("tokenizer.ggml.tokens"), metadata.integers("tokenizer.ggml.token_type")
    if len(tokens) != vocabulary or len(types) != vocabulary:
        raise metadata.error("tokenizer.ggml.tokens", f"with {len(types):,} types, for {vocabulary:,} rows")
    if not all(tokens) or not set(types) <= _TOKEN_TYPES:
        raise metadata.error("tokenizer.ggml.token_type", "or a token is empty, or of another type than exports have")
    for merge in metadata.texts("tokenizer.ggml.merges"):
        if not all(merge.partition(" ")):
            raise metadata.error("tokenizer.ggml.merges", f"one of which is {merge[:40]!r}, not two pieces")
    for key in _FLAGS:
        metadata.flag(key, False)
    for key in _IDS & metadata.values.keys():
        if metadata.integer(key) >= vocabulary:
            raise metadata.error(key, f"beyond {vocabulary:,} tokens")


def _check_tensors(header: GgufHeader, sizes: Mapping[str, int]) -> None:
    if sizes["block_count"] > len(header.tensors):
        raise _error(header, f"it claims {sizes['block_count']:,} blocks, more than it has tensors")
    shapes = {name: (shape, needed) for name, shape, needed in _tensors_of(sizes)}
    missing = next((name for name, (_, needed) in shapes.items() if needed and name not in header.tensors), None)
    if missing:
        raise _error(header, f"it has no tensor {missing!r}")
    for name, tensor in header.tensors.items():
        if name not in shapes:
            raise _error(header, f"it has a tensor {name!r}, which no export has")
        shape = shapes[name][0]
        if tensor.shape != shape:
            raise _error(header, f"the tensor {name!r} is {list(tensor.shape)}, where its metadata says {list(shape)}")
        if tensor.type.name not in _STORED:
            raise _error(header, f"the tensor {name!r} is of the type {tensor.type.name}, which no export has")


def _tensors_of(sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yields each tensor's name, shape, the contiguous dimension first, and whether there must be one."""
    hidden, inner, rows = sizes["embedding_length"], sizes["feed_forward_length"], sizes["vocab_size"]
    head = sizes["attention.key_length"]
    queries, keys = (sizes[key] * head for key in _HEADS)
    matrices = {
        "attn_q": (hidden, queries),
        "attn_k": (hidden, keys),
        "attn_v": (hidden, keys),
        "attn_output": (queries, hidden),
        "ffn_gate": (hidden, inner),
        "ffn_up": (hidden, inner),
        "ffn_down": (inner, hidden),
    }
    yield "token_embd.weight", (hidden, rows), True
    yield "output_norm.weight", (hidden,), True
    yield "output.weight", (hidden, rows), False
    for block in range(sizes["block_count"]):
        for name, shape in matrices.items():
            yield f"blk.{block}.{name}.weight", shape, True
            yield f"blk.{block}.{name}.bias", shape[1:], False
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{block}.{name}.weight", (hidden,), True
        for name in ("attn_q_norm", "attn_k_norm"):
            yield f"blk.{block}.{name}.weight", (head,), False
