"""Bytes as byte-level vocabularies, and those that fall back on bytes, write them."""

from __future__ import annotations

__all__ = ["BYTE_PIECES", "byte_alphabet"]

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""The piece of each byte, by its value, in vocabularies with byte fallback."""


def byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's character -> byte, in the order of the bytes, `[256]`.

    The 188 bytes that are printable in Latin-1 stand for themselves, the others for the characters from U+0100 on.

    Example:
        >>> byte_alphabet()["a"], byte_alphabet()["Ġ"]
        (97, 32)
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {chr(byte if byte in printable else next(others)): byte for byte in range(256)}
