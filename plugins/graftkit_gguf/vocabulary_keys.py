"""How GGUF names the special tokens and the types of tokens: `docs/gguf.md` in the ggml project."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BYTE", "CONTROL", "NORMAL", "ROLE_KEYS", "UNKNOWN", "UNUSED", "USER_DEFINED"]

ROLE_KEYS: Mapping[str, str] = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
"""graftkit's role -> the key of its token's id."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""The values of `tokenizer.ggml.token_type`."""
