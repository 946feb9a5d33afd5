"""Which characters a class of a regular expression may match, as far as Python's Unicode data says."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

__all__ = ["ANY", "Alphabet", "Characters", "characters", "property_of", "space"]

_LAST = 0x10FFFF
_CASED = frozenset({"Lu", "Ll", "Lt", "Mn"})  # U+0345 is a mark, and the case of a letter
_FEW = 1000
_MOST_CELLS = 10_000_000
_SPACE = "\t\n\x0b\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@dataclass(frozen=True, slots=True)
class Characters:
    """A set of characters that is known from below and from above.

    Attributes:
        kind: `ranges`, `categories`, `not`, `or`, `and`, or `unknown`: any set.
        ranges: First and last code points.
        categories: Unicode general categories.
        parts: What is negated, united or intersected.
    """

    kind: str
    ranges: tuple[tuple[int, int], ...] = ()
    categories: frozenset[str] = frozenset()
    parts: tuple[Characters, ...] = ()

    def negated(self) -> Characters:
        """Returns all other characters."""
        return Characters("not", parts=(self,))

    def without_case(self) -> Characters:
        """Returns the set with the other cases of its letters; a large range may hold any character's."""
        if self.kind == "ranges":
            if sum(last - first + 1 for first, last in self.ranges) > _FEW:
                return Characters("or", parts=(self, Characters("unknown")))
            return Characters("ranges", tuple((code, code) for code in sorted(set(self._cases()))))
        if self.kind == "categories" and self.categories & _CASED:
            return Characters("categories", categories=self.categories | _CASED)
        return Characters(self.kind, self.ranges, self.categories, tuple(part.without_case() for part in self.parts))

    def _cases(self) -> Iterator[int]:
        for first, last in self.ranges:
            for code in range(first, last + 1):
                yield code
                yield from _other_cases(code)


ANY = Characters("ranges", ((0, _LAST),))


def characters(*ranges: tuple[int, int]) -> Characters:
    """Returns the set of these ranges."""
    return Characters("ranges", ranges)


def property_of(name: str) -> Characters:
    r"""Returns the characters with a property, as in `\p{L}`; any set where it isn't a general category.

    Example:
        >>> sorted(property_of("Lu").categories), property_of("Han").kind
        (['Lu'], 'unknown')
    """
    plain = name.replace(" ", "").replace("_", "").replace("-", "").lower()
    if plain in ("any", "l&"):
        return ANY if plain == "any" else Characters("categories", categories=frozenset({"Lu", "Ll", "Lt"}))
    short = _LONG_NAMES.get(plain, plain)
    found = frozenset(category for category in _CATEGORIES if category.lower().startswith(short))
    return Characters("categories", categories=found) if found and len(short) <= 2 else Characters("unknown")


_CATEGORIES = (
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
    "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
)  # fmt: skip
_LONG_NAMES = {
    "letter": "l",
    "mark": "m",
    "number": "n",
    "punctuation": "p",
    "symbol": "s",
    "separator": "z",
    "other": "c",
    "uppercaseletter": "lu",
    "lowercaseletter": "ll",
    "titlecaseletter": "lt",
    "modifierletter": "lm",
    "otherletter": "lo",
    "nonspacingmark": "mn",
    "spacingmark": "mc",
    "enclosingmark": "me",
    "decimalnumber": "nd",
    "letternumber": "nl",
    "othernumber": "no",
}


def space() -> Characters:
    r"""Returns what `\s` matches."""
    found = [(ord(sign), ord(sign)) for sign in _SPACE.replace("\u2000-\u200a", "")]
    return characters(*found, (0x2000, 0x200A))


class Alphabet:
    """Groups of characters that tell apart everything in some sets; a set of groups is an int's bits.

    Args:
        sets: Every set that will be asked for.
    """

    def __init__(self, sets: Iterable[Characters]) -> None:
        edges, categories = {0, _LAST + 1}, False
        for leaf in _leaves(sets):
            categories = categories or leaf.kind == "categories"
            for first, last in leaf.ranges:
                edges |= {first, last + 1}
        self._edges = sorted(edges)
        self._groups: list[tuple[int, str]] = []
        self._starts: list[int] = []
        for first, end in pairwise(self._edges):
            self._starts.append(len(self._groups))
            found = _categories_between(first, end) if categories else {""}
            self._groups += [(first, category) for category in sorted(found)]
        self._starts.append(len(self._groups))
        self._all = (1 << len(self._groups)) - 1

    def letters(self, sets: Sequence[Characters]) -> tuple[list[int], int]:
        """Returns what each set may hold as bits, with one bit for all groups that no set tells apart.

        Returns:
            An int a set, and how many bits there are.

        Raises:
            ValueError: There are too many sets of too many characters.
        """
        if len(sets) * len(self._groups) > _MOST_CELLS:
            raise ValueError("too many different characters")
        signs = [format(self.may(found), f"0{len(self._groups)}b") for found in sets]
        columns = list(dict.fromkeys(zip(*signs, strict=True)))
        masks = [0] * len(sets)
        for number, column in enumerate(columns):
            for place, sign in enumerate(column):
                masks[place] |= (sign == "1") << number
        return masks, max(1, len(columns))

    def may(self, characters: Characters) -> int:
        """Returns the groups of which the set may hold a character."""
        return self._bounds(characters)[0]

    def _bounds(self, found: Characters) -> tuple[int, int]:
        """Returns the groups that it may hold, and those that it does hold."""
        if found.kind == "ranges":
            marks = bytearray(b"0" * len(self._groups))
            for first, last in _merged(found.ranges):
                begin = self._starts[bisect_left(self._edges, first)]
                end = self._starts[bisect_left(self._edges, last + 1)]
                marks[begin:end] = b"1" * (end - begin)
            exact = _of_marks(marks)
            return exact, exact
        if found.kind == "categories":
            exact = _of_marks(bytes(48 + (category in found.categories) for _, category in self._groups))
            return exact, exact
        if found.kind == "unknown":
            return self._all, 0
        bounds = [self._bounds(part) for part in found.parts]
        if found.kind == "not":
            return self._all & ~bounds[0][1], self._all & ~bounds[0][0]
        may, must = bounds[0] if bounds else (0, 0)
        for other_may, other_must in bounds[1:]:
            if found.kind == "or":
                may, must = may | other_may, must | other_must
            else:
                may, must = may & other_may, must & other_must
        return may, must


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns ranges that don't overlap, in order, for those that may."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _of_marks(marks: bytes | bytearray) -> int:
    """Returns the int whose lowest bit is the first of some marks, 0 or 1."""
    return int(marks[::-1], 2)


def _leaves(sets: Iterable[Characters]) -> Iterator[Characters]:
    rest = list(sets)
    while rest:
        found = rest.pop()
        if found.parts:
            rest += found.parts
        else:
            yield found


def _categories_between(first: int, end: int) -> set[str]:
    """Returns the general categories of the code points from the first one up to the end.

    A code point that is not assigned in Python's data may have any category in the newer data of a library.
    """
    starts, categories = _category_runs()
    found = set(categories[bisect_right(starts, first) - 1 : bisect_right(starts, end - 1)])
    return set(_CATEGORIES) if "Cn" in found else found


@cache
def _category_runs() -> tuple[list[int], list[str]]:
    """Returns where each run of code points of one category begins, and its category."""
    starts, categories = [0], [unicodedata.category("\0")]
    for code in (*range(0x40000), *range(0xE0000, 0xE1000), 0xF0000, 0xFFFFE, 0x100000, 0x10FFFE):
        category = unicodedata.category(chr(code))
        if category != categories[-1]:
            starts.append(code)
            categories.append(category)
    return starts, categories


def _other_cases(code: int) -> tuple[int, ...]:
    """Returns the characters that differ from one in their case alone."""
    return _by_case().get(chr(code).casefold()[:1], ())


@cache
def _by_case() -> dict[str, tuple[int, ...]]:
    """Returns the first character of a case folding -> the cased characters that are folded to what begins so."""
    found: dict[str, list[int]] = {}
    for code in (*range(0x3000), *range(0xA600, 0xAC00), *range(0xFB00, 0x10000), *range(0x10400, 0x1F000)):
        sign = chr(code)
        folded = sign.casefold()
        if folded != sign:
            found.setdefault(folded[0], [ord(folded[0])]).append(code)
    return {folded: tuple(codes) for folded, codes in found.items()}
