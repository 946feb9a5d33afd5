"""Writes names into lines of a recipe that are offered, so that they are read as those names."""

from __future__ import annotations

import json
import re

__all__ = ["yaml_word"]

_BARE = re.compile(r"/?[A-Za-z_][\w./-]*", re.ASCII)
_NO_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
"""What YAML takes for true, false or nothing; "no" is Norwegian, too."""


def yaml_word(name: str) -> str:
    """Returns the name of a column or a file as YAML reads it, within braces too.

    Args:
        name: The name.

    Example:
        >>> yaml_word("records.jsonl"), yaml_word("a, b: c.jsonl"), yaml_word("no")
        ('records.jsonl', '"a, b: c.jsonl"', '"no"')
    """
    return name if _BARE.fullmatch(name) and name.lower() not in _NO_WORDS else json.dumps(name)
