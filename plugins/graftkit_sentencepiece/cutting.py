"""Finds added tokens in a text; the model encodes the text between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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

    Tokens are looked up by their first character and length: some models have 26,000 of them, too many for a
    regular expression of alternatives.

    Args:
        tokens: The tokens to find.

    Attributes:
        tokens: Text -> token.
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.tokens = {token.content: token for token in tokens}
        firsts = sorted({content[0] for content in self.tokens})
        self._first = re.compile("[" + "".join(map(re.escape, firsts)) + "]") if firsts else None
        self._lengths = {
            first: sorted({len(text) for text in self.tokens if text[0] == first}, reverse=True) for first in firsts
        }

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
        while self._first and (match := self._first.search(text, place)):
            token = self._at(text, match.start())
            place = match.start() + (len(token.content) if token else 1)
            if token:
                yield match.start(), place, token

    def _at(self, text: str, place: int) -> AddedToken | None:
        for length in self._lengths[text[place]]:
            token = self.tokens.get(text[place : place + length])
            if token:
                return token
        return None

    @staticmethod
    def _widened(text: str, after: int, start: int, end: int, token: AddedToken) -> tuple[int, int]:
        """Returns the token's start and end with the white space that `lstrip` and `rstrip` add to it."""
        while token.lstrip and start > after and text[start - 1].isspace():
            start -= 1
        while token.rstrip and end < len(text) and text[end].isspace():
            end += 1
        return start, end
