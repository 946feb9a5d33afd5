"""How byte-level tokenizers split text before merging: patterns by name, and the pre-tokenizers of tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["GPT2", "PATTERNS", "byte_level", "isolate", "isolated_characters", "pre_tokenizer", "split"]

Json = dict[str, Any]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str, end: str = "") -> str:
    """Returns cl100k's pattern: contractions in any case, words with one mark before, numbers, marks, white space.

    Args:
        digits: The alternative that matches numbers.
        end: Alternatives, each with a `|` after it, that are tried before line ends.
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

Each splits a text as its original does; some originals use possessive quantifiers, which the library reads
otherwise.
"""

_CLASS = re.compile(r"\[((?:\\x\{[0-9a-f]+\})+)\]")


def pre_tokenizer(pattern: str) -> Json:
    """Returns the pre-tokenizer that splits by a regular expression and writes bytes in GPT-2's alphabet."""
    if pattern == GPT2:
        return byte_level(use_regex=True)  # the library has this one built in, several times as fast
    return {"type": "Sequence", "pretokenizers": [split(pattern), byte_level(use_regex=False)]}


def byte_level(*, use_regex: bool) -> Json:
    """Returns the pre-tokenizer that writes bytes in GPT-2's alphabet.

    Args:
        use_regex: Whether it also splits by GPT-2's pattern.
    """
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(pattern: str) -> Json:
    """Returns the pre-tokenizer that splits around each match of a regular expression, and keeps the matches."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def isolate(characters: Iterable[str]) -> Json:
    """Returns the pre-tokenizer that makes each of these characters a piece of its own.

    Args:
        characters: At least one.
    """
    escaped = "".join(f"\\x{{{ord(character):x}}}" for character in characters)
    return split(f"[{escaped}]")


def isolated_characters(part: Mapping[str, Any]) -> set[str]:
    r"""Returns the characters for which `isolate` gave this pre-tokenizer; none where it is another one.

    Example:
        >>> sorted(isolated_characters(isolate("ab")))
        ['a', 'b']
    """
    pattern = part.get("pattern", {}).get("Regex", "")
    match = _CLASS.fullmatch(pattern) if {"invert": False, **part} == split(pattern) else None
    return {chr(int(code, 16)) for code in re.findall(r"[0-9a-f]+(?=\})", match[1])} if match else set()
