"""How byte-level tokenizers split text before merging: patterns by name, and what tokenizer.json makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graftkit.errors import RequestError
from tokenizers import Regex

__all__ = ["PATTERNS", "byte_level", "named", "pattern_of", "pre_tokenizer", "split"]

Json = dict[str, Any]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, end: str = "") -> str:
    """Contractions in any case, words with one mark before them, numbers, marks with line ends, white space.

    Args:
        digits: What a number is.
        end: What comes before the line ends.
    """
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        + end
        + r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

PATTERNS: Mapping[str, str] = {
    "gpt2": GPT2,
    "cl100k": _words(r"\p{N}{1,3}", r"\s+\z|"),  # as tiktoken has it now: the white space at the end is one piece
    "llama3": _words(r"\p{N}{1,3}"),
    "qwen2": _words(r"\p{N}"),
    "o200k": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "whitespace": r" ?\S+|\s+(?!\S)|\s+",
}
"""Names of patterns -> regular expressions that the `tokenizers` library and tiktoken read alike.

Each cuts a text as its original does; some of those are written with possessive quantifiers, which the library
takes for something else.
"""

_POSSESSIVE_COUNT = re.compile(r"(?<!\\)\}\+")


def named(pattern: str) -> str:
    r"""Returns the regular expression that a name means; anything else is one already.

    Example:
        >>> named("whitespace")
        ' ?\\S+|\\s+(?!\\S)|\\s+'

    Raises:
        RequestError: It is none, or one that the `tokenizers` library takes for something else.
    """
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
    return pattern


def pre_tokenizer(pattern: str) -> Json:
    """Returns the pre-tokenizer that splits by a regular expression and then writes bytes as characters."""
    if pattern == GPT2:
        return byte_level(use_regex=True)  # the library has this one built in, several times as fast
    return {"type": "Sequence", "pretokenizers": [split(pattern), byte_level(use_regex=False)]}


def byte_level(*, use_regex: bool) -> Json:
    """Returns the part of a tokenizer.json that writes bytes as characters."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(pattern: str) -> Json:
    """Returns the pre-tokenizer that sets apart what a regular expression matches."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def pattern_of(part: Mapping[str, Any] | None) -> str | None:
    """Returns the regular expression by which a byte-level pre-tokenizer splits, or None where it is no single one."""
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
