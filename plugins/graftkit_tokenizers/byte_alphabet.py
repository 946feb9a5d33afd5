"""From a vocabulary's pieces to the bytes that they stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

__all__ = ["TokenBytes", "byte_alphabet"]

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's printable stand-in for every byte: 188 printable bytes stand for themselves.

    Example:
        >>> byte_alphabet()["Ġ"]
        32
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class TokenBytes:
    """Knows how a tokenizer writes bytes into its pieces.

    Args:
        spec: The tokenizer.json.
        vocab: The model's pieces and ids, without added tokens.
    """

    def __init__(self, spec: Mapping[str, Any], vocab: Mapping[str, int]) -> None:
        parts = json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
        self.is_byte_level = '"ByteLevel"' in parts
        self._has_fallback = bool(spec.get("model", {}).get("byte_fallback"))
        self._space = "▁" if "▁" in json.dumps(spec.get("decoder"), ensure_ascii=False) else ""
        self._vocab = vocab
        self._alphabet = byte_alphabet()

    @cached_property
    def has_every_byte(self) -> bool:
        """Whether each of the 256 bytes is a piece of its own, so that no text is lost."""
        return all(character in self._vocab for character in self._alphabet)

    def of(self, piece: str) -> bytes:
        """Returns the bytes of one piece."""
        if self.is_byte_level and all(c in self._alphabet for c in piece):
            return bytes(self._alphabet[c] for c in piece)
        match = _BYTE_FALLBACK.fullmatch(piece) if self._has_fallback else None
        if match:
            return bytes([int(match[1], 16)])
        return (piece.replace(self._space, " ") if self._space else piece).encode("utf-8")
