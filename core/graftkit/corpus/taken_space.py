"""The white space that special tokens take: `lstrip` and `rstrip` of added tokens."""

from __future__ import annotations

from functools import cache

from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["TakenSpace"]

_SPACE = "\t\n\x0b\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""The characters that Unicode calls white space, which the tokenizers library strips."""


class TakenSpace:
    """Removes from a text what the special tokens beside it take, so that it can be encoded without them.

    Args:
        tokenizer: The tokenizer of the special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._sides = cache(self._found_sides)

    def without(self, text: str, before: str = "", after: str = "") -> str:
        """Returns what is left of a text.

        Args:
            text: The text.
            before: The special token that stands before it, if any.
            after: The one that stands after it.
        """
        if before and self._sides(before)[1]:
            text = text.lstrip(_SPACE)
        return text.rstrip(_SPACE) if after and self._sides(after)[0] else text

    def _found_sides(self, special: str) -> tuple[bool, bool]:
        """Returns whether a special token takes the white space before it, and that after it."""
        encoding = self._tokenizer.encode_offsets(f"a {special} a", frozenset({special}))
        id = self._tokenizer.special_tokens[special]
        for found, (left, right) in zip(encoding.ids, encoding.offsets, strict=True):
            if found == id:
                return left < 2, right > 2 + len(special)
        return False, False
