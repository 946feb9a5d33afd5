"""Finds some of many texts in another, such as added tokens, in time that hardly grows with their number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["TextSearch"]


class TextSearch:
    """Finds texts: the leftmost, and of those that start at one place the longest.

    Texts are looked up in a set, by length, at each place of a first character of one: some vocabularies have 26,000
    added tokens, too many for a regular expression of alternatives.

    Args:
        texts: What to find; empty ones are ignored.

    Example:
        >>> TextSearch(["ab", "abc", "c"]).next("xabcc", 0)
        (1, 'abc')
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(filter(None, texts))
        lengths: dict[str, set[int]] = defaultdict(set)
        for text in self._texts:
            lengths[text[0]].add(len(text))
        self._longest = max(map(len, self._texts), default=0)
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._first = re.compile(f"[{''.join(map(re.escape, sorted(lengths)))}]") if lengths else None

    def next(self, text: str, start: int) -> tuple[int, str] | None:
        """Returns the place and the text of the first one found.

        Args:
            text: Where to search.
            start: The place to start from, in characters.
        """
        for match in self._first.finditer(text, start) if self._first else ():
            for length in self._lengths[match[0]]:
                if (found := text[match.start() : match.start() + length]) in self._texts:
                    return match.start(), found
        return None

    def across(self, text: str, place: int) -> str | None:
        """Returns the text of one that begins before a place and ends after it; None where there is none.

        Args:
            text: Where to search.
            place: The place, in characters.
        """
        begin = max(0, place - self._longest + 1)
        for match in self._first.finditer(text, begin, place) if self._first else ():
            for length in self._lengths[match[0]]:
                end = match.start() + length
                if place < end <= len(text) and (found := text[match.start() : end]) in self._texts:
                    return found
        return None
