"""Measures what a tokenizer makes of a corpus."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["Measured", "batches", "measure"]

_BATCH = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What a tokenizer made of some texts.

    Attributes:
        bytes: UTF-8 bytes of the texts.
        counts: Id -> how often it came up.
        texts: How many texts there were.
        whole: How many of them come back from their ids as they were.
        lost: Characters of the texts that do not come back from their ids -> how often they stand in the texts.
        seconds: How long the encoding took, on all cores.
    """

    bytes: int
    counts: Mapping[int, int]
    texts: int
    whole: int
    lost: Mapping[str, int]
    seconds: float

    @property
    def tokens(self) -> int:
        """How many tokens the texts became."""
        return sum(self.counts.values())

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that a token stands for, on average; 0 where there are no tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0


def measure(
    tokenizer: Tokenizer, texts: Iterable[str], on_text: Callable[[str, Sequence[int]], None] | None = None
) -> Measured:
    """Encodes texts, and every character in them by itself to see whether it comes back.

    Args:
        tokenizer: The tokenizer.
        texts: The texts; iterated once.
        on_text: Called with each text and its ids.
    """
    counts: Counter[int] = Counter()
    characters: Counter[str] = Counter()
    size, number, whole, seconds = 0, 0, 0, 0.0
    for batch in batches(texts):
        size += sum(len(text.encode()) for text in batch)
        characters.update("".join(batch))
        start = time.perf_counter()
        encoded = tokenizer.encode_batch(batch)
        seconds += time.perf_counter() - start
        number += len(batch)
        for text, ids in zip(batch, encoded, strict=True):
            counts.update(ids)
            whole += _comes_back(tokenizer, text, ids)
            if on_text:
                on_text(text, ids)
    return Measured(size, counts, number, whole, _lost(tokenizer, characters), seconds)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups texts, about a million characters each time."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _lost(tokenizer: Tokenizer, characters: Mapping[str, int]) -> dict[str, int]:
    """Finds the characters that do not come back, the most frequent first."""
    distinct = sorted(characters)
    encoded = zip(distinct, tokenizer.encode_batch(distinct), strict=True)
    lost = [character for character, ids in encoded if not _comes_back(tokenizer, character, ids)]
    return {character: characters[character] for character in sorted(lost, key=lambda c: (-characters[c], c))}


def _comes_back(tokenizer: Tokenizer, text: str, ids: list[int]) -> bool:
    """Tells whether a text comes back; the space that SentencePiece puts before every text does not count."""
    decoded = tokenizer.decode_bytes(ids)
    return decoded in (text.encode(), f" {text}".encode()) or tokenizer.decode(ids) == text
