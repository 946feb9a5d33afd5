"""Finds added tokens in texts as the `tokenizers` library does, fast with thousands of them, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from graftkit.tokenization.text_search import TextSearch

__all__ = ["AddedInText", "Found"]

Json = Mapping[str, Any]

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SPACE_AFTER = re.compile(f"[{_SPACE}]*")
_WORD = re.compile(r"\w")


class Found(NamedTuple):
    """An added token in a text.

    Attributes:
        start: Its first character's place; white space that `lstrip` adds to it is included.
        end: The place after its last character; white space that `rstrip` adds is included.
        token: The added token's text.
    """

    start: int
    end: int
    token: str


class AddedInText:
    """Finds added tokens: the leftmost, and of those that start at one place the longest.

    Tokens without `normalized` are found first, the others in what lies between. A token that fails for its
    `single_word` hides a shorter one at its place, and white space that `rstrip` takes in is still searched, both as
    in the library.

    Source: `added_vocabulary.rs` of the `tokenizers` library.

    Args:
        tokens: Entries of `added_tokens`.
        lowers: Whether the normalizer lowercases, so that tokens with `normalized` are found in any case.
    """

    def __init__(self, tokens: Iterable[Json], *, lowers: bool) -> None:
        raw: list[tuple[str, Json]] = []
        normalized: list[tuple[str, Json]] = []
        for token in tokens:
            if token.get("normalized"):
                normalized.append((_lower(token["content"]) if lowers else token["content"], token))
            else:
                raw.append((token["content"], token))
        self._raw = _Search(raw)
        self._normalized = _Search(normalized)
        self._lowers = lowers

    def find(self, text: str) -> Iterator[Found]:
        """Yields the tokens in a text from left to right."""
        start = 0
        for found in self._raw.find(text):
            yield from self._find_normalized(text, start, found.start)
            yield found
            start = found.end
        yield from self._find_normalized(text, start, len(text))

    def _find_normalized(self, text: str, start: int, end: int) -> Iterator[Found]:
        part = text[start:end]
        for found in self._normalized.find(_lower(part) if self._lowers else part):
            yield Found(start + found.start, start + found.end, found.token)


class _Search:
    """Finds tokens by the texts that stand for them, which are the lowercased ones where the normalizer lowercases."""

    def __init__(self, tokens: Iterable[tuple[str, Json]]) -> None:
        self._tokens: dict[str, Json] = {}
        for text, token in tokens:
            self._tokens.setdefault(text, token)
        self._search = TextSearch(self._tokens)

    def find(self, text: str) -> Iterator[Found]:
        """Yields the tokens in a text from left to right."""
        searched = taken = 0
        while match := self._search.next(text, searched):
            start, content = match
            end = searched = start + len(content)
            token = self._tokens[content]
            if token.get("single_word") and _touches_word(text, start, end):
                continue
            if token.get("lstrip"):
                start = taken + len(text[taken:start].rstrip(_SPACE))
            if token.get("rstrip") and (space := _SPACE_AFTER.match(text, end)):
                end = space.end()
            if start < end:
                yield Found(start, end, token["content"])
                taken = end


def _touches_word(text: str, start: int, end: int) -> bool:
    return any(map(_WORD.match, (text[max(start - 1, 0) : start], text[end : end + 1])))


def _lower(text: str) -> str:
    """Lowercases characters that stay one, so that places stay."""
    return "".join(lower if len(lower := character.lower()) == 1 else character for character in text)
