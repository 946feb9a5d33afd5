"""The parts of a tokenizer.json, and the files around it, for tokenizers that are made here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "BYTE_PIECES",
    "added_token",
    "bos_first",
    "bpe_model",
    "byte_level_decoder",
    "bytes_decoder",
    "dump",
    "tokenizer_json",
]

Json = dict[str, Any]

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""How the families that fall back on bytes write each of them."""


def tokenizer_json(model: Json, **parts: Json | list[Json] | None) -> Json:
    """Returns a tokenizer.json in the library's own order; parts that are not given are null."""
    empty: Json = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    head: Json = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": parts.pop("added_tokens", [])}
    return head | empty | parts | {"model": model}


def bpe_model(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> Json:
    """Returns a BPE model.

    Args:
        vocab: Pieces and ids.
        merges: Pairs of pieces, the first to be merged first.
        byte_fallback: Whether characters that are no piece become bytes.
        ignore_merges: Whether a word that is a piece is taken as it is, without merging.
    """
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in merges],
    }


def added_token(id: int, content: str, *, special: bool = True, **flags: bool) -> Json:
    """Returns an entry of `added_tokens`."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **plain, "special": special, **flags}


def bos_first(token: str, id: int) -> Json:
    """Returns the post-processor that puts the beginning-of-sequence token before each text."""
    bos, first = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [bos, first, {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {token: {"id": token, "ids": [id], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [bos, first], "pair": pair, "special_tokens": tokens}


def dump(data: Mapping[str, Any]) -> bytes:
    """Returns JSON as files keep it."""
    return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def byte_level_decoder() -> Json:
    """Returns the decoder of byte-level families."""
    return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def bytes_decoder(space: str | None = None) -> Json:
    """Returns the decoder of families that fall back on bytes.

    Args:
        space: What stands for a space in their pieces, or None where that is a space.
    """
    replace = {"type": "Replace", "pattern": {"String": space}, "content": " "}
    return {
        "type": "Sequence",
        "decoders": [*([replace] if space else []), {"type": "ByteFallback"}, {"type": "Fuse"}],
    }
