"""Tokens with tags as the entities that they make up."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

__all__ = ["Entity", "grouped"]

_OUTSIDE = "O"
_HANGUL = range(0xAC00, 0xD7A4)


@dataclass(frozen=True, slots=True)
class Entity:
    """Some neighbouring words of the same tag.

    Attributes:
        word: Their text.
        label: Their tag, without the prefix that says where an entity begins.
        score: The mean of the probabilities of their tags.
        start: Where they begin, in characters of the text.
        end: Where they end.
    """

    word: str
    label: str
    score: float
    start: int
    end: int


def grouped(text: str, offsets: Sequence[tuple[int, int]], shares: torch.Tensor, labels: Sequence[str]) -> list[Entity]:
    """Returns the entities of a text, as transformers' pipeline groups them with `aggregation_strategy="first"`.

    A word has the tag of its first token, which alone was learnt, be it the space before: the likeliest one. It goes on
    with the entity of the word before it where both have the same tag, prefixes aside, unless its own prefix says that
    it begins one. What is tagged O is no entity. Prefixes are B- and I-, and E- and S- or, where no tag is written
    otherwise, L- and U-, which the pipeline takes for parts of the tag.

    Args:
        text: The text.
        offsets: Where each of its tokens begins and ends, in characters.
        shares: The probability of each tag, `[tokens, tags]`.
        labels: The tags in the order of their numbers.
    """
    begins = [end - len(text[start:end].lstrip()) for start, end in offsets]
    written = [number for number, (begin, (_, end)) in enumerate(zip(begins, offsets, strict=True)) if begin < end]
    places = [(begins[number], offsets[number][1]) for number in written]
    firsts = _firsts(text, places)
    best = shares[[written[number - 1] + 1 if number else 0 for number in firsts]].max(1)
    ends = [places[following - 1][1] for following in [*firsts, len(places)][1:]]
    found = []
    for first, last, label in _groups([labels[number] for number in best.indices.tolist()], _prefixes(labels)):
        if label != _OUTSIDE:
            start, end = places[firsts[first]][0], ends[last]
            score = best.values[first : last + 1].mean().item()
            found.append(Entity(text[start:end], label, score, start, end))
    return found


def _firsts(text: str, places: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the numbers of the tokens that words begin with.

    Words are runs of letters and digits, and all other characters one by one; so are those of scripts without spaces.
    """
    found: list[int] = []
    reached = 0
    for number, (start, end) in enumerate(places):
        if reached <= start and _begins(text, start):
            found.append(number)
        reached = max(reached, end)
    return found


def _begins(text: str, at: int) -> bool:
    """Tells whether a word begins at a character."""
    if _is_mark(text[at]):
        return at == 0
    return at == 0 or any(_stands_alone(one) or not _is_of_word(one) for one in text[at - 1 : at + 1])


def _stands_alone(character: str) -> bool:
    """Tells whether a character is of a script without spaces."""
    return unicodedata.east_asian_width(character) in "WF" and ord(character) not in _HANGUL


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _prefixes(labels: Sequence[str]) -> str:
    """Returns the letters that tags begin with which say where an entity begins and ends."""
    written = {label[:1] if label[1:2] == "-" else "" for label in labels if label != _OUTSIDE}
    return "BILU" if written <= {*"BILU"} else "BIES"


def _groups(tags: Sequence[str], prefixes: str) -> Iterator[tuple[int, int, str]]:
    """Yields the numbers of the first and the last word of each group, and its tag without a prefix."""
    parts = [(tag[0], tag[2:]) if tag[:1] in prefixes and tag[1:2] == "-" else ("I", tag) for tag in tags]
    cuts = [
        number
        for number, ((_, former), (prefix, label)) in enumerate(pairwise(parts), 1)
        if prefix in "BSU" or label != former
    ]
    for start, end in pairwise([0, *cuts, len(parts)] if parts else []):
        yield start, end - 1, parts[start][1]
