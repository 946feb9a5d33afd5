"""Parts of a tokenizer.json, as the `tokenizers` library writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "added_token",
    "bpe_model",
    "byte_level_decoder",
    "bytes_decoder",
    "dump",
    "template",
    "tokenizer_json",
]

Json = dict[str, Any]


def tokenizer_json(model: Json, **parts: Json | list[Json] | None) -> Json:
    """Returns a tokenizer.json with its fields in the library's order.

    Args:
        model: The field `model`.
        parts: Other fields, such as `pre_tokenizer`; those not given are null, `added_tokens` is empty.
    """
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
        vocab: Piece -> id.
        merges: Pairs of pieces, in the order of merging.
        byte_fallback: Whether characters without a piece become bytes.
        ignore_merges: Whether a word that is a piece is not merged.
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
    """Returns an entry of `added_tokens`.

    Args:
        id: Its id.
        content: Its text.
        special: Whether it is a special token.
        flags: `single_word`, `lstrip`, `rstrip` and `normalized`; False where not given.
    """
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **plain, "special": special, **flags}


def template(*, before: Mapping[str, int] | None = None, after: Mapping[str, int] | None = None) -> Json:
    """Returns the post-processor that puts tokens around each text of a pair.

    Args:
        before: Token -> id of those before a text, such as the beginning-of-sequence token.
        after: Token -> id of those after a text, such as the end-of-sequence token.
    """
    first, last = before or {}, after or {}

    def around(name: str, type_id: int) -> list[Json]:
        text: Json = {"Sequence": {"id": name, "type_id": type_id}}
        left, right = (
            [{"SpecialToken": {"id": token, "type_id": type_id}} for token in part] for part in (first, last)
        )
        return [*left, text, *right]

    ids = {**first, **last}
    tokens = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in sorted(ids)}
    single = around("A", 0)
    return {"type": "TemplateProcessing", "single": single, "pair": single + around("B", 1), "special_tokens": tokens}


def dump(data: Mapping[str, Any]) -> bytes:
    """Returns JSON as UTF-8, indented by two spaces, with a line end."""
    return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def byte_level_decoder() -> Json:
    """Returns the decoder of byte-level vocabularies."""
    return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def bytes_decoder(space: str | None = None) -> Json:
    """Returns the decoder of vocabularies with byte fallback.

    Args:
        space: The character for a space in pieces, such as ▁; None where that is a space.
    """
    replace = {"type": "Replace", "pattern": {"String": space}, "content": " "}
    return {
        "type": "Sequence",
        "decoders": [*([replace] if space else []), {"type": "ByteFallback"}, {"type": "Fuse"}],
    }
