"""Finds added tokens in a text; the model encodes the text between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from graftkit.tokenization.text_search import TextSearch

from graftkit_sentencepiece.roles import AddedToken

__all__ = ["Stretch", "TokenFinder"]


class Stretch(NamedTuple):
    """A part of a text.

    Attributes:
        start: Its first character's place.
        end: The place after its last character.
        token: The id of the added token, or None for text.
    """

    start: int
    end: int
    token: int | None


class TokenFinder:
    """Splits texts at added tokens: the leftmost, and of those that start at one place the longest.

    Args:
        tokens: The tokens to find.

    Attributes:
        tokens: Text -> token.
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens}
        self._search = TextSearch(self.tokens)

    def cut(self, text: str) -> Iterator[Stretch]:
        """Yields the parts of a text in order; empty ones are left out."""
        place = 0
        for start, end, token in self._found(text):
            if start < place:  # it begins in the white space that the token before it strips
                continue
            left, right = self._widened(text, place, start, end, token)
            if place < left:
                yield Stretch(place, left, None)
            yield Stretch(left, right, token.id)
            place = right
        if place < len(text):
            yield Stretch(place, len(text), None)

    def _found(self, text: str) -> Iterator[tuple[int, int, AddedToken]]:
        place = 0
        while found := self._search.next(text, place):
            start, content = found
            place = start + len(content)
            yield start, place, self.tokens[content]

    @staticmethod
    def _widened(text: str, after: int, start: int, end: int, token: AddedToken) -> tuple[int, int]:
        """Returns the token's start and end with the white space that `lstrip` and `rstrip` add to it."""
        while token.lstrip and start > after and text[start - 1].isspace():
            start -= 1
        while token.rstrip and end < len(text) and text[end].isspace():
            end += 1
        return start, end
