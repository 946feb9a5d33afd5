"""Finds added tokens in texts, at a cost that hardly grows with how many there are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["AddedInText", "Found"]

Json = Mapping[str, Any]

_FLAGS = ("single_word", "lstrip", "rstrip")


class Found(NamedTuple):
    """A place in a text.

    Attributes:
        start: Where it begins, the white space included that the token takes in.
        end: Where it ends.
        token: The added token's text.
    """

    start: int
    end: int
    token: str


class AddedInText:
    """Finds added tokens: of several the one that starts first, and of those the longest.

    Args:
        tokens: Entries of `added_tokens`.
        lowers: Whether tokens that are looked for in normalized text are found in any case.
    """

    def __init__(self, tokens: Iterable[Json], *, lowers: bool) -> None:
        plain: list[Json] = []
        others: list[Json] = []
        for token in sorted(tokens, key=lambda token: len(token["content"]), reverse=True):
            flagged = any(token.get(flag) for flag in _FLAGS) or (lowers and token.get("normalized"))
            (others if flagged else plain).append(token)
        self._plain = _Plain([token["content"] for token in plain])
        self._others = _Others(others, lowers=lowers)

    def find(self, text: str) -> Iterator[Found]:
        """Yields the tokens in a text, one after the other."""
        plain, other = self._plain.next(text, 0), self._others.next(text, 0)
        while plain or other:
            found = min((f for f in (plain, other) if f), key=lambda f: (f.start, -len(f.token)))
            yield found
            plain = self._plain.next(text, found.end) if plain and plain.start < found.end else plain
            other = self._others.next(text, found.end) if other and other.start < found.end else other


class _Plain:
    """Tokens that are found wherever they stand: looked up, by length, where the first character of one stands."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = frozenset(tokens)
        lengths: dict[str, set[int]] = defaultdict(set)
        for token in tokens:
            lengths[token[0]].add(len(token))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._first = re.compile(f"[{''.join(map(re.escape, sorted(lengths)))}]") if lengths else None

    def next(self, text: str, start: int) -> Found | None:
        """Returns the first token from a place on."""
        for match in self._first.finditer(text, start) if self._first else ():
            at = match.start()
            for length in self._lengths[match[0]]:
                if (token := text[at : at + length]) in self._tokens:
                    return Found(at, at + length, token)
        return None


class _Others:
    """Tokens that take in white space, or are found in some places only."""

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
