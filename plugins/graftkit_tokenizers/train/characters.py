"""Counts the characters of texts as they pass by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["CharacterCounts"]

_CODES = 0x110000
_BATCH = 1 << 20


class CharacterCounts:
    """Counts of characters, in constant memory: an int64 for each code point."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_CODES, dtype=np.int64)

    def reading(self, texts: Iterable[str]) -> Iterator[str]:
        """Yields the texts unchanged; all are counted once the iterator is exhausted."""
        waiting: list[str] = []
        size = 0
        for text in texts:
            waiting.append(text)
            size += len(text)
            if size >= _BATCH:
                self._add("".join(waiting))
                waiting, size = [], 0
            yield text
        self._add("".join(waiting))

    def _add(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self._counts += np.bincount(codes, minlength=_CODES)

    def become(self, change: Callable[[str], str]) -> CharacterCounts:
        """Returns the counts after each character is replaced by the text that `change` gives."""
        changed = CharacterCounts()
        for character, count in self.most_common():
            for result in change(character):
                changed._counts[ord(result)] += count
        return changed

    def most_common(self) -> list[tuple[str, int]]:
        """Returns characters and their counts, the most frequent first, then by code point."""
        codes = np.flatnonzero(self._counts)
        order = codes[np.argsort(-self._counts[codes], kind="stable")]
        return [(chr(code), int(self._counts[code])) for code in order]

    def rare(self, coverage: float, most: int) -> frozenset[str]:
        """Returns the rarest characters, which together are at most `1 - coverage` of the texts.

        Args:
            coverage: The share of all characters to be kept, as SentencePiece's `character_coverage`.
            most: The most characters that are returned, the rarest ones.
        """
        ranked = self.most_common()
        sums = np.cumsum([count for _, count in ranked], dtype=np.float64)
        kept = int(np.searchsorted(sums, coverage * sums[-1])) + 1 if ranked else 0
        return frozenset(character for character, _ in ranked[max(kept, len(ranked) - most) :])
