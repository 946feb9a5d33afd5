"""The bytes of a tokenizer's pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from graftkit.tokenization.byte_alphabet import BYTE_PIECES, byte_alphabet

__all__ = ["BYTE_PIECE", "TextStart", "TokenBytes", "falls_back_on_bytes"]

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
"""The piece of a byte in vocabularies with byte fallback."""


def falls_back_on_bytes(spec: Mapping[str, Any]) -> bool:
    """Tells whether a tokenizer with byte fallback decodes by joining the bytes of its pieces.

    Its decoders are ByteFallback and Fuse, perhaps with one that replaces ▁ before, and a Strip of the start after.

    Args:
        spec: The tokenizer.json.
    """
    decoders = (spec.get("decoder") or {}).get("decoders") or []
    rest = decoders[:-1] if decoders and decoders[-1].get("type") == "Strip" and not decoders[-1]["stop"] else decoders
    return (
        bool(spec.get("model", {}).get("byte_fallback"))
        and [part.get("type") for part in rest[-2:]] == ["ByteFallback", "Fuse"]
        and (not rest[:-2] or (len(rest) == 3 and _written(rest[0]) is not None))
    )


def _written(decoder: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the string that a decoder replaces and its replacement; None for another kind of decoder."""
    if decoder.get("type") == "Metaspace":
        return str(decoder.get("replacement", "▁")), " "
    found = decoder.get("pattern", {}).get("String") if decoder.get("type") == "Replace" else None
    return (found, str(decoder.get("content"))) if isinstance(found, str) else None


class TextStart:
    """Strips characters from the start of a text that comes in parts.

    Args:
        character: The character.
        count: The most of them that are stripped.
    """

    def __init__(self, character: str, count: int) -> None:
        self._character = character
        self._left = count

    def push(self, text: str) -> str:
        """Returns the next part of the text without the characters to be stripped."""
        while self._left and text:
            if not text.startswith(self._character):
                self._left = 0
                break
            text, self._left = text[1:], self._left - 1
        return text


class TokenBytes:
    """Maps a tokenizer's pieces to bytes.

    Attributes:
        is_byte_level: Whether pieces are written in GPT-2's alphabet.
        joins: Whether the text of ids is their bytes, joined and decoded as UTF-8.

    Args:
        spec: The tokenizer.json.
        vocab: The model's pieces and ids, without added tokens.
    """

    def __init__(self, spec: Mapping[str, Any], vocab: Mapping[str, int]) -> None:
        parts = json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
        self.is_byte_level = '"ByteLevel"' in parts
        self.joins = self.is_byte_level or falls_back_on_bytes(spec)
        model = spec.get("model", {})
        self._has_fallback = bool(model.get("byte_fallback"))
        self._prefix = model.get("continuing_subword_prefix") or "" if model.get("type") == "WordPiece" else ""
        decoder = spec.get("decoder") or {}
        self._decoders: list[Mapping[str, Any]] = decoder.get("decoders") or [decoder]
        self._written = [pair for part in self._decoders if (pair := _written(part)) is not None]
        self._vocab = vocab
        self._alphabet = byte_alphabet()

    @cached_property
    def has_every_byte(self) -> bool:
        """Whether each of the 256 bytes is a piece, so that every text can be encoded."""
        if self._has_fallback:
            return all(piece in self._vocab for piece in BYTE_PIECES)
        return not self.missing

    @cached_property
    def missing(self) -> bytes:
        """The bytes that are no piece of a byte-level vocabulary, ascending."""
        return bytes(sorted(byte for character, byte in self._alphabet.items() if character not in self._vocab))

    def start(self) -> TextStart:
        """Returns a new object that strips the start of one text, as the decoder's Strip does."""
        last = self._decoders[-1]
        return TextStart(last["content"], last["start"]) if last.get("type") == "Strip" else TextStart("", 0)

    def of(self, piece: str, *, added: bool = False) -> bytes:
        """Returns the bytes of one piece.

        Args:
            piece: How the vocabulary writes it.
            added: Whether it is an added token; those are plain text in every family.
        """
        if self.is_byte_level:
            if added or not all(c in self._alphabet for c in piece):
                return piece.encode("utf-8")
            return bytes(self._alphabet[c] for c in piece)
        match = BYTE_PIECE.fullmatch(piece) if self._has_fallback else None
        if match:
            return bytes([int(match[1], 16)])
        text = piece.removeprefix(self._prefix)
        for old, new in self._written:
            text = text.replace(old, new)
        return text.encode("utf-8")
