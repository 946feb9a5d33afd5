"""Finds the name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["known_names", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "Did you mean 'x'? ", or nothing where no known name is near.

    Example:
        >>> nearest("adaptor", ["adapter", "model"])
        "Did you mean 'adapter'? "
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean '{found[0]}'? " if found else ""


def known_names(name: str, known: Iterable[str]) -> str:
    """Returns the nearest known name and the list of all, as a hint."""
    names = sorted(known)
    return f"{nearest(name, names)}Known: {', '.join(names) or 'none'}."
