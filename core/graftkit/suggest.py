"""Finds the name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["known_names", "nearest"]

_LONGEST = 200
"""Characters of a name that is compared: the time grows with the square of two of them, and more."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "Did you mean 'x'? ", or nothing where no known name is near.

    Example:
        >>> nearest("adaptor", ["adapter", "model"])
        "Did you mean 'adapter'? "
    """
    short = [other for other in known if len(other) <= _LONGEST] if len(name) <= _LONGEST else []
    found = difflib.get_close_matches(name, short, n=1, cutoff=0.6)
    return f"Did you mean '{found[0]}'? " if found else ""


def known_names(name: str, known: Iterable[str]) -> str:
    """Returns the nearest known name and the list of all, as a hint."""
    names = sorted(known)
    return f"{nearest(name, names)}Known: {', '.join(names) or 'none'}."
