"""Patterns of names with `*`, `?` and `[...]`, as fnmatch reads them, in a time that grows with their length alone."""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache

__all__ = ["matches", "pattern_of"]


def matches(name: str, pattern: str) -> bool:
    """Tells whether a name is one of those that a pattern means; case counts on every system.

    Example:
        >>> matches("q_proj", "[qk]_*")
        True
    """
    return pattern_of(pattern).match(name) is not None


@lru_cache(maxsize=256)
def pattern_of(pattern: str) -> re.Pattern[str]:
    """Returns a pattern as a regular expression of whole names."""
    return re.compile(fnmatch.translate(_closed(pattern)))


def _closed(pattern: str) -> str:
    """Returns a pattern of the same meaning in which every bracket is closed: `[ab]*[c` becomes `[ab]*[[]c`.

    fnmatch looks from each open one to the pattern's end: in a time that grows with the square of the length.
    """
    start = pattern.find("[")
    while start >= 0:
        first = start + (2 if pattern.startswith("[!", start) else 1)
        end = pattern.find("]", first + 1 if pattern.startswith("]", first) else first)
        if end < 0:  # nor is any further one closed
            return pattern[:start] + pattern[start:].replace("[", "[[]")
        start = pattern.find("[", end)
    return pattern
