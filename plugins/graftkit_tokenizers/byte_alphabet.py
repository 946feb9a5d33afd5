"""From a vocabulary's pieces to the bytes that they stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

__all__ = ["BYTE_PIECE", "TokenBytes", "byte_alphabet", "falls_back_on_bytes"]

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
"""How the families that fall back on bytes write each of them."""


def byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's printable stand-in for every byte: 188 printable bytes stand for themselves.

    Example:
        >>> byte_alphabet()["Ġ"]
        32
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def falls_back_on_bytes(spec: Mapping[str, Any]) -> bool:
    """Tells whether a tokenizer without ByteLevel decodes by joining bytes, those of <0x..> among them."""
    decoders = [part.get("type") for part in (spec.get("decoder") or {}).get("decoders", ())]
    return (
        bool(spec.get("model", {}).get("byte_fallback"))
        and decoders[-2:] == ["ByteFallback", "Fuse"]
        and (decoders[:-2] in ([], ["Replace"]))
    )


class TokenBytes:
    """Knows how a tokenizer writes bytes into its pieces.

    Attributes:
        is_byte_level: Whether each byte is written as a character.
        joins: Whether the text of ids is their bytes, joined.

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
        self._space = "▁" if "▁" in json.dumps(spec.get("decoder"), ensure_ascii=False) else ""
        self._vocab = vocab
        self._alphabet = byte_alphabet()

    @cached_property
    def has_every_byte(self) -> bool:
        """Whether each of the 256 bytes is a piece of its own, so that no text is lost."""
        if self._has_fallback:
            return all(f"<0x{byte:02X}>" in self._vocab for byte in range(256))
        return not self.missing

    @cached_property
    def missing(self) -> bytes:
        """The bytes that are no piece of their own, ascending."""
        return bytes(sorted(byte for character, byte in self._alphabet.items() if character not in self._vocab))

    def of(self, piece: str) -> bytes:
        """Returns the bytes of one piece."""
        if self.is_byte_level and all(c in self._alphabet for c in piece):
            return bytes(self._alphabet[c] for c in piece)
        match = BYTE_PIECE.fullmatch(piece) if self._has_fallback else None
        if match:
            return bytes([int(match[1], 16)])
        text = piece.removeprefix(self._prefix)
        return (text.replace(self._space, " ") if self._space else text).encode("utf-8")
