"""Compares tokenizers on one corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.vocabulary.measure import Measured, measure
from graftkit.vocabulary.scripts import ScriptCounter, ScriptShare

__all__ = ["Comparison", "compare_on", "unreachable_tokens"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One tokenizer on the corpus.

    Attributes:
        ids: Its vocabulary size.
        declared_lossless: Whether it declares that decoding gives every text back.
        measured: Its counts on the texts.
        scripts: Script -> bytes and tokens; empty where it gives no offsets.
        unreachable: The number of tokens that their own text is not encoded to.
    """

    ids: int
    declared_lossless: bool
    measured: Measured
    scripts: Mapping[str, ScriptShare]
    unreachable: int

    @property
    def used_share(self) -> float:
        """The share of its ids that the texts use."""
        return len(self.measured.counts) / self.ids if self.ids else 0.0

    @property
    def megabytes_per_second(self) -> float:
        """MB of UTF-8 encoded per second, on all cores; a rough figure, since other work slows it down."""
        return self.measured.bytes / 1e6 / self.measured.seconds if self.measured.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return {
            "ids": self.ids,
            "bytes": self.measured.bytes,
            "tokens": self.measured.tokens,
            "bytes_per_token": self.measured.bytes_per_token,
            "scripts": {
                name: {"bytes": share.bytes, "tokens": share.tokens, "bytes_per_token": share.bytes_per_token}
                for name, share in self.scripts.items()
            },
            "lossless": self.declared_lossless,
            "texts": self.measured.texts,
            "texts_that_come_back": self.measured.whole,
            "lost_characters": dict(self.measured.lost),
            "used_ids": len(self.measured.counts),
            "unreachable_ids": self.unreachable,
            "megabytes_per_second": self.megabytes_per_second,
        }


def compare_on(tokenizer: Tokenizer, texts: Iterable[str]) -> Comparison:
    """Measures one tokenizer; call it for each on the same texts.

    Args:
        tokenizer: The tokenizer.
        texts: The texts; iterated once.
    """
    declared = tokenizer.capabilities
    scripts = ScriptCounter(tokenizer)
    return Comparison(
        tokenizer.vocab_size,
        declared.lossless_unicode,
        measure(tokenizer, texts, scripts.add if declared.offsets else None),
        scripts.shares(),
        len(unreachable_tokens(tokenizer)),
    )


def unreachable_tokens(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of tokens whose own text is encoded to other ids; most are never used.

    Left out are special tokens, tokens that are no whole UTF-8 characters, and tokens whose text is not decoded as it
    was, as with tokenizers that put a space before every text.
    """
    special = set(tokenizer.special_tokens.values())
    texts = {id: text for id in range(tokenizer.vocab_size) if id not in special and (text := _text(tokenizer, id))}
    encoded = zip(texts.items(), tokenizer.encode_batch(list(texts.values())), strict=True)
    return [id for (id, text), ids in encoded if ids != [id] and tokenizer.decode_bytes(ids) == text.encode()]


def _text(tokenizer: Tokenizer, id: int) -> str | None:
    try:
        return tokenizer.token_bytes(id).decode("utf-8")
    except (IndexError, UnicodeDecodeError):
        return None
