"""Counts a tokenizer's tokens, losses and speed on a corpus."""

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
    """A tokenizer's counts on some texts.

    Attributes:
        bytes: UTF-8 bytes of the texts.
        counts: Id -> how often it occurs.
        texts: The number of texts.
        whole: The number of texts that decoding gives back unchanged.
        lost: Character that decoding does not give back -> how often it occurs in the texts.
        seconds: The time that encoding took, on all cores.
    """

    bytes: int
    counts: Mapping[int, int]
    texts: int
    whole: int
    lost: Mapping[str, int]
    seconds: float

    @property
    def tokens(self) -> int:
        """The number of tokens of the texts."""
        return sum(self.counts.values())

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token, on average; 0 without tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0


def measure(
    tokenizer: Tokenizer, texts: Iterable[str], on_text: Callable[[str, Sequence[int]], None] | None = None
) -> Measured:
    """Encodes texts and decodes them again, and each distinct character of them by itself.

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
    """Groups texts into lists of about a million characters."""
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
    """Returns the characters that decoding does not give back, the most frequent first."""
    distinct = sorted(characters)
    encoded = zip(distinct, tokenizer.encode_batch(distinct), strict=True)
    lost = [character for character, ids in encoded if not _comes_back(tokenizer, character, ids)]
    return {character: characters[character] for character in sorted(lost, key=lambda c: (-characters[c], c))}


def _comes_back(tokenizer: Tokenizer, text: str, ids: list[int]) -> bool:
    """Tells whether decoding gives a text back; the space that SentencePiece adds before a text does not count."""
    decoded = tokenizer.decode_bytes(ids)
    return decoded in (text.encode(), f" {text}".encode()) or tokenizer.decode(ids) == text
