"""Checks a GGUF file of an export before llama.cpp sees it: it is one that graftkit may have written, and no other.

llama.cpp trusts what a file says of itself: it aborts, or takes any time and memory, where that contradicts itself.
"""

from __future__ import annotations

from graftkit.errors import ModelError

from graftkit_gguf.architectures import SIZES
from graftkit_gguf.header import GgufHeader
from graftkit_gguf.metadata import Metadata
from graftkit_gguf.parts import TOKEN_TYPES
from graftkit_gguf.pooling import SCORES, SCORES_WIDTH
from graftkit_gguf.reading import model_config, model_weights
from graftkit_gguf.stored_types import FILE_TYPE_KEYS
from graftkit_gguf.tensor_types import READABLE_TYPES
from graftkit_gguf.text_form import FORM_KEYS
from graftkit_gguf.tokenizer import read_tokenizer
from graftkit_gguf.unigram import CHARSMAP, MERGES_SPACES
from graftkit_gguf.wordpiece import NORMALIZER_KEYS

__all__ = ["check_exported"]

_AGAIN = "Export it again, or take the export from where it came from."
_IDS = tuple(f"{role}_token_id" for role in ("bos", "eos", "unknown", "padding", "eot", "eom", "seperator"))
_TOKENIZER = (
    *("model", "pre", "tokens", "token_type", "merges", "scores", "add_bos_token", "add_eos_token", "add_space_prefix"),
    *_IDS,
)
_OTHERS = frozenset(
    {
        "general.architecture",
        *FILE_TYPE_KEYS,
        "tokenizer.chat_template",
        *FORM_KEYS,
        TOKEN_TYPES,
        *NORMALIZER_KEYS,
        CHARSMAP,
        MERGES_SPACES,
        *(f"tokenizer.ggml.{key}" for key in _TOKENIZER),
    }
)
_TOKEN_TYPES = frozenset({1, 2, 3, 4, 5, 6})
_LARGEST_SIZE = 2**24
"""Of a model's sizes, the context's included: those of the largest models are a tenth of it."""


def check_exported(header: GgufHeader) -> int:
    """Makes sure that a file holds what an export holds, no less and no more, and returns the number of its tokens.

    Raises:
        ModelError: It doesn't.
    """
    metadata = Metadata(header.path, header.metadata)
    name = metadata.text("general.architecture")
    strange = sorted(key for key in header.metadata.keys() - _OTHERS if not key.startswith(f"{name}."))
    if strange:
        raise _error(header, f"its metadata has {strange[0][:80]!r}, which no export has")
    for setting in SIZES:
        if metadata.integer(f"{name}.{setting.key}", least=1) > _LARGEST_SIZE:
            raise metadata.error(f"{name}.{setting.key}", f"more than {_LARGEST_SIZE:,}")
    if metadata.integer(f"{name}.block_count") > len(header.tensors):
        raise _error(header, "it claims more blocks than it has tensors")
    if SCORES in header.tensors:  # without it llama.cpp reads more than there is
        metadata.integer(f"{name}.{SCORES_WIDTH}")
    config = model_config(header)
    rows: int = config["vocab_size"]
    if metadata.integer(f"{name}.vocab_size") != rows:
        raise metadata.error(f"{name}.vocab_size", f"but token_embd.weight has {rows:,} rows")
    for weight in model_weights(header, config).values():
        for tensor in weight.tensors:
            if tensor.type.name not in READABLE_TYPES:
                message = f"the tensor {tensor.name!r} is of the type {tensor.type.name}, which no export has"
                raise _error(header, message)
    _check_tokenizer(metadata, rows, header)
    return rows


def _check_tokenizer(metadata: Metadata, rows: int, header: GgufHeader) -> None:
    tokenizer = read_tokenizer(header)
    if len(tokenizer.vocabulary) != rows:
        raise metadata.error("tokenizer.ggml.tokens", f"for {rows:,} rows")
    if not set(tokenizer.types) <= _TOKEN_TYPES:
        raise metadata.error("tokenizer.ggml.token_type", "of another type than exports have")
    for key in (f"tokenizer.ggml.{key}" for key in _IDS):
        if key in metadata and metadata.integer(key) >= rows:
            raise metadata.error(key, f"beyond {rows:,} tokens")


def _error(header: GgufHeader, message: str) -> ModelError:
    return ModelError(message, where=str(header.path), hint=_AGAIN)
