"""Finds added tokens in texts as the `tokenizers` library does, fast with thousands of them, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graftkit.tokenization.text_search import TextSearch

__all__ = ["AddedInText", "Found"]

Json = Mapping[str, Any]

_FLAGS = ("single_word", "lstrip", "rstrip")


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

    Args:
        tokens: Entries of `added_tokens`.
        lowers: Whether the normalizer lowercases, so that tokens with `normalized` are found in any case.
    """

    def __init__(self, tokens: Iterable[Json], *, lowers: bool) -> None:
        plain: list[Json] = []
        others: list[Json] = []
        for token in sorted(tokens, key=lambda token: len(token["content"]), reverse=True):
            flagged = any(token.get(flag) for flag in _FLAGS) or (lowers and token.get("normalized"))
            (others if flagged else plain).append(token)
        self._plain = TextSearch(token["content"] for token in plain)
        self._others = _Others(others, lowers=lowers)

    def find(self, text: str) -> Iterator[Found]:
        """Yields the tokens in a text from left to right."""
        plain, other = self._next_plain(text, 0), self._others.next(text, 0)
        while plain or other:
            found = min((f for f in (plain, other) if f), key=lambda f: (f.start, -len(f.token)))
            yield found
            plain = self._next_plain(text, found.end) if plain and plain.start < found.end else plain
            other = self._others.next(text, found.end) if other and other.start < found.end else other

    def _next_plain(self, text: str, start: int) -> Found | None:
        found = self._plain.next(text, start)
        return Found(found[0], found[0] + len(found[1]), found[1]) if found else None


class _Others:
    """Tokens with `lstrip`, `rstrip` or `single_word`, or found in any case: one regular expression."""

    def __init__(self, tokens: Sequence[Json], *, lowers: bool) -> None:
        self._texts = [token["content"] for token in tokens]
        self._pattern = re.compile("|".join(_alternative(token, lowers) for token in tokens)) if tokens else None

    def next(self, text: str, start: int) -> Found | None:
        """Returns the first token from a place on."""
        match = self._pattern.search(text, start) if self._pattern else None
        return Found(*match.span(), self._texts[(match.lastindex or 0) - 1]) if match else None


def _alternative(token: Json, lowers: bool) -> str:
    """Returns the regular expression that finds an added token."""
    text = f"({re.escape(token['content'])})"
    text = f"(?i:{text})" if lowers and token.get("normalized") else text
    text = rf"(?<!\w){text}(?!\w)" if token.get("single_word") else text
    return (r"\s*" if token.get("lstrip") else "") + text + (r"\s*" if token.get("rstrip") else "")
