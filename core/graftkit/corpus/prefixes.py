"""Whether the beginning of a text is encoded alone as it is in the whole text, at many places of a text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from graftkit.interfaces.tokenizer import Specials, Tokenizer

__all__ = ["Prefixes"]

WINDOW = 512
"""Characters before a place that are encoded again, about."""

_LEAST_TOKENS = 4


class Prefixes:
    """Compares tokens before places of one text, in an order from left to right.

    Encoding the text before each place would take a time that grows with the square of the places. It is done for the
    first place, and for each that is twice as far as the one before that it was done for. For others the last
    `WINDOW` characters before the place are encoded; where the second half of them has the tokens that it has in the
    whole text, so has what is before. Where it hasn't, all is encoded.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        ids: Its token ids.
        lefts: Where each token begins, in characters.
        specials: How special tokens in the text are encoded.
    """

    def __init__(
        self, tokenizer: Tokenizer, text: str, ids: Sequence[int], lefts: Sequence[int], specials: Specials = "none"
    ) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._ids = ids
        self._lefts = lefts
        self._specials: Specials = specials
        self._begun = -1
        self._compared = 0

    def same(self, place: int, cut: int = 0) -> bool:
        """Tells whether the tokens that begin before a place are those of the text before it.

        Args:
            place: Where the text before ends, in characters.
            cut: A place before, at which the text may be cut without a change of tokens.
        """
        size = place - cut
        if self._begun != cut:
            self._begun, self._compared = cut, 0
        if 2 * WINDOW < size < 2 * self._compared and self._same_near(place, cut):
            return True
        self._compared = max(size, self._compared)
        left, right = bisect_left(self._lefts, cut), bisect_left(self._lefts, place)
        return self._ids[left:right] == self._encode(cut, place)

    def _same_near(self, place: int, cut: int) -> bool:
        begin = self._lefts[max(0, bisect_right(self._lefts, place - WINDOW) - 1)]
        tail = self._ids[bisect_left(self._lefts, place - WINDOW // 2) : bisect_left(self._lefts, place)]
        if begin < cut or len(tail) < _LEAST_TOKENS:
            return False
        return self._encode(begin, place)[-len(tail) :] == tail

    def _encode(self, begin: int, end: int) -> Sequence[int]:
        return self._tokenizer.encode(self._text[begin:end], self._specials)
