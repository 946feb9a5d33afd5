"""The pattern by which a byte-level tokenizer splits text: checked where a user gives one, read from its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graftkit.errors import RequestError
from graftkit.interfaces.pattern_cost import PatternError, steps_at_most
from graftkit.tokenization.bounds import CHARACTERS, MOST_SEARCH, SLOW
from graftkit.tokenization.splitting import GPT2, PATTERNS
from tokenizers import Regex

__all__ = ["named", "pattern_of"]

_POSSESSIVE_COUNT = re.compile(r"(?<!\\)\}\+")


def named(pattern: str) -> str:
    r"""Returns the regular expression of a name; anything else is taken for one.

    Args:
        pattern: A key of PATTERNS, or a regular expression.

    Example:
        >>> named("whitespace")
        ' ?\\S+|\\s+(?!\\S)|\\s+'

    Raises:
        RequestError: The name is unknown, or the expression is malformed, has a quantifier that `tokenizers` reads
            otherwise, or could take very long.
    """
    if not isinstance(pattern, str):  # from a file
        raise RequestError(f"the pattern is no text: {str(pattern)[:100]}")
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    if re.fullmatch(r"[\w-]+", pattern):
        raise RequestError(f"no pattern is called '{pattern}'", hint=f"Known: {', '.join(PATTERNS)}.")
    if _POSSESSIVE_COUNT.search(re.sub(r"\\[pP]\{\^?\w+\}", "", pattern)):
        raise RequestError(
            "the pattern repeats a count possessively, as in a{1,3}+, which the tokenizers library takes for (a{1,3})+",
            hint="Write (?>a{1,3}), or name one of these: " + ", ".join(PATTERNS) + ".",
        )
    try:
        Regex(pattern)
    except Exception as error:  # the library has no other class for it
        raise RequestError(f"the pattern {pattern!r} is no regular expression: {error}") from None
    try:
        slow = steps_at_most(pattern, CHARACTERS) > MOST_SEARCH
    except PatternError as error:
        raise RequestError(f"the pattern {pattern!r} could take forever, since {error}") from None
    if slow:
        raise RequestError(f"the pattern {pattern!r} could take forever", hint=SLOW)
    return pattern


def pattern_of(part: Mapping[str, Any] | None) -> str | None:
    """Returns the regular expression by which a byte-level pre-tokenizer splits; None where it does more."""
    match part:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None
