"""Patterns of names with `*`, `?` and `[...]`, as fnmatch reads them."""

from __future__ import annotations

__all__ = ["closed"]


def closed(pattern: str) -> str:
    """Returns a pattern of the same meaning in which every bracket is closed.

    fnmatch looks from each open one to the pattern's end: in a time that grows with the square of the length.

    Example:
        >>> closed("[ab]*[c")
        '[ab]*[[]c'
    """
    start = pattern.find("[")
    while start >= 0:
        first = start + (2 if pattern.startswith("[!", start) else 1)
        end = pattern.find("]", first + 1 if pattern.startswith("]", first) else first)
        if end < 0:  # nor is any further one closed
            return pattern[:start] + pattern[start:].replace("[", "[[]")
        start = pattern.find("[", end)
    return pattern
