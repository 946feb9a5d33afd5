"""Tells from a tokenizer.json whether `decode(encode(text))` is `text` for every text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graftkit_tokenizers.tokenizer_json.token_bytes import BYTE_PIECE, falls_back_on_bytes

__all__ = ["keeps_every_text"]


def keeps_every_text(spec: Mapping[str, Any]) -> bool:
    """Tells whether no part adds, drops or changes a character before the model; False for parts it does not know.

    That each of the 256 bytes is a piece has to be checked besides.

    Args:
        spec: The tokenizer.json.
    """
    model = spec.get("model", {})
    added = [token for token in spec.get("added_tokens", []) if not token.get("special")]  # found in any text
    return (
        not spec.get("normalizer")
        and (_writes_bytes(spec) or _keeps_characters(spec))
        and not any(token.get("lstrip") or token.get("rstrip") for token in added)
        and not (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
    )


def _writes_bytes(spec: Mapping[str, Any]) -> bool:
    """Tells whether the pre-tokenizer writes each byte of a text in GPT-2's alphabet, and removes nothing."""
    parts = list(_parts(spec.get("pre_tokenizer")))
    return any(part.get("type") == "ByteLevel" for part in parts) and all(map(_keeps, parts))


def _keeps_characters(spec: Mapping[str, Any]) -> bool:
    """Tells whether each character becomes itself or its bytes, and no text becomes a byte piece such as <0x41>."""
    return (
        falls_back_on_bytes(spec)
        and len(spec["decoder"]["decoders"]) == 2
        and all(map(_keeps, _parts(spec.get("pre_tokenizer"))))
        and not any(BYTE_PIECE.fullmatch("".join(pair)) for pair in spec["model"]["merges"])
    )


def _parts(pre_tokenizer: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return
    if pre_tokenizer.get("type") != "Sequence":
        yield pre_tokenizer
    for part in pre_tokenizer.get("pretokenizers", ()):
        yield from _parts(part)


def _keeps(part: Mapping[str, Any]) -> bool:
    if part.get("type") == "ByteLevel":
        return not part.get("add_prefix_space")
    if part.get("type") in ("Split", "Punctuation"):
        return part.get("behavior") != "Removed"
    return part.get("type") == "Digits"
