"""Counts the characters of texts while somebody else reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["CharacterCounts"]

_CODES = 0x110000
_BATCH = 1 << 20


class CharacterCounts:
    """How often each character occurs, in memory that does not grow with the texts."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_CODES, dtype=np.int64)

    def reading(self, texts: Iterable[str]) -> Iterator[str]:
        """Yields the texts as they are; all are counted once the last one was taken."""
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
        """Returns the counts of the characters that each of these becomes."""
        changed = CharacterCounts()
        for character, count in self.most_common():
            for result in change(character):
                changed._counts[ord(result)] += count
        return changed

    def most_common(self) -> list[tuple[str, int]]:
        """Returns characters and their counts, the most frequent first; equals in the order of their codes."""
        codes = np.flatnonzero(self._counts)
        order = codes[np.argsort(-self._counts[codes], kind="stable")]
        return [(chr(code), int(self._counts[code])) for code in order]

    def rare(self, coverage: float, most: int) -> frozenset[str]:
        """Returns the characters that are left out when the most frequent ones make up a share of the texts.

        Args:
            coverage: The share of all characters that must be kept, as SentencePiece's `character_coverage`.
            most: How many are left out at most, the rarest ones.
        """
        ranked = self.most_common()
        sums = np.cumsum([count for _, count in ranked], dtype=np.float64)
        kept = int(np.searchsorted(sums, coverage * sums[-1])) + 1 if ranked else 0
        return frozenset(character for character, _ in ranked[max(kept, len(ranked) - most) :])
