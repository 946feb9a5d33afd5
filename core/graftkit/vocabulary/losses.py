"""Finds characters that a tokenizer loses: decoding their ids gives something else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["describe_losses", "lost_characters"]


@cache
def _probes() -> tuple[str, ...]:
    """Returns all of ASCII, and further characters until every byte of UTF-8 is in one of them."""
    found, seen = [chr(code) for code in range(128)], set(range(128))
    for code in range(128, 0x110000, 61):
        if not 0xD800 <= code < 0xE000:
            new = set(chr(code).encode()) - seen
            seen |= new
            found += [chr(code)] if new else []
    return tuple(found)


def lost_characters(tokenizer: Tokenizer) -> list[str]:
    """Returns those of about 200 characters, which have every byte of UTF-8, that are lost between two letters.

    A tokenizer that declares `lossless_unicode` is not tested.
    """
    if tokenizer.capabilities.lossless_unicode:
        return []
    batch = tokenizer.encode_batch([f"a{probe}b" for probe in _probes()])
    return [probe for probe, ids in zip(_probes(), batch, strict=True) if f"a{probe}b" not in tokenizer.decode(ids)]


def describe_losses(lost: Sequence[str]) -> str:
    """Returns the lost characters in words, for a notice.

    Example:
        >>> describe_losses(["a", chr(4)])
        "2 of 193 probed characters, such as 'a' and U+0004"
    """
    shown = [f"'{c}'" if c.isprintable() else f"U+{ord(c):04X}" for c in lost[:3]]
    return f"{len(lost)} of {len(_probes())} probed characters, such as {' and '.join(shown)}"
