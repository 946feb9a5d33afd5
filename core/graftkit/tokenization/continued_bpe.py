"""Continued byte pair encoding: learns merges on top of a vocabulary's own.

It starts from the words of a corpus as the base tokenizer encodes them; then the most frequent pair of neighbours
becomes a token, repeatedly, as in Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units"
(2016). Since the new merges apply after all the old ones, they only join tokens of the base.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN

__all__ = ["Limits", "Merge", "Merges", "learn_merges"]

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Merge:
    """Two neighbours that become one token.

    Attributes:
        left: The left one's id.
        right: The right one's id.
        id: The id of what they become.
        piece: The new piece.
        count: How often the pair occurred in the corpus when it was merged.
    """

    left: int
    right: int
    id: int
    piece: str
    count: int


@dataclass(frozen=True, slots=True)
class Merges:
    """Learnt merges.

    Attributes:
        merges: In the order in which they were learnt and apply. An id occurs twice where two pairs make the same
            piece.
        uses: Id -> how often it occurs in the corpus once everything is merged.
    """

    merges: tuple[Merge, ...]
    uses: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of learning.

    Attributes:
        tokens: The most new pieces.
        min_frequency: How often a pair has to occur, at least.
        max_length: The most characters of a piece; None for no limit.
        forbidden: Pieces that must not be made, such as the texts of added tokens; asked with `in`.
    """

    tokens: int
    min_frequency: int = 2
    max_length: int | None = None
    forbidden: Container[str] = ()

    @property
    def longest(self) -> int:
        """The most characters of a piece that is read again."""
        return LONGEST_TOKEN if self.max_length is None else min(self.max_length, LONGEST_TOKEN)


def learn_merges(
    words: Iterable[tuple[Sequence[int], int]],
    pieces: Mapping[int, str],
    limits: Limits,
    *,
    first_id: int,
    join: Callable[[str, str], str] = str.__add__,
) -> Merges:
    """Learns merges from the words of a corpus.

    Of equally frequent pairs the one with the lower left id is taken first, then the one with the lower right id. A
    pair that makes a piece of the base is never merged, so a text without new tokens is encoded as before. The first n
    new pieces are those that `tokens=n` gives.

    Args:
        words: The ids of each word, as the base encodes it, and how often it occurs. Nothing is merged across words.
        pieces: Id -> piece of the base.
        limits: When to stop.
        first_id: The id of the first new piece.
        join: Returns the piece of two pieces.

    Example:
        >>> found = learn_merges([([0, 1, 0, 1], 3)], {0: "a", 1: "b"}, Limits(1), first_id=2)
        >>> found.merges
        (Merge(left=0, right=1, id=2, piece='ab', count=6),)
        >>> found.uses
        {2: 6}
    """
    corpus = _Corpus()
    for ids, count in words:
        corpus.add(ids, count)
    found = _Found(dict(pieces), limits, first_id, join)
    while not found.is_full and (pair := corpus.most_frequent(limits.min_frequency)):
        id = found.id_of(pair)
        if id is not None:
            found.add(pair, id, corpus.merge(pair, id))
    return Merges(tuple(found.merges), corpus.uses())


@dataclass(slots=True)
class _Found:
    """The merges so far."""

    pieces: dict[int, str]
    limits: Limits
    next_id: int
    join: Callable[[str, str], str]
    merges: list[Merge] = field(default_factory=list)
    new: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken = set(self.pieces.values())

    @property
    def is_full(self) -> bool:
        return len(self.new) >= self.limits.tokens

    def id_of(self, pair: Pair) -> int | None:
        """Returns the id that a pair is merged to; None where it must not be merged."""
        piece = self._piece(pair)
        if piece in self.taken or len(piece) > self.limits.longest or piece in self.limits.forbidden:
            return None
        return self.new.get(piece, self.next_id)

    def add(self, pair: Pair, id: int, count: int) -> None:
        piece = self._piece(pair)
        if id == self.next_id:
            self.pieces[id], self.new[piece] = piece, id
            self.next_id += 1
        self.merges.append(Merge(*pair, id, piece, count))

    def _piece(self, pair: Pair) -> str:
        return self.join(self.pieces[pair[0]], self.pieces[pair[1]])


class _Corpus:
    """The ids of all words in one list, linked inside each word.

    A merge costs time linear in the pair's occurrences, whatever the length of the words.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []  # -1 where a token was joined to the one before it
        self._before: list[int] = []  # places; -1 at the start of a word
        self._after: list[int] = []  # places; -1 at its end
        self._weights: list[int] = []  # how often the word occurs
        self._counts: dict[Pair, int] = defaultdict(int)
        self._places: dict[Pair, list[int]] = defaultdict(list)  # some are out of date
        self._heap: list[tuple[int, int, int]] | None = None  # (-count, left, right); counts are never too low

    def add(self, ids: Sequence[int], weight: int) -> None:
        start, end = len(self._ids), len(self._ids) + len(ids)
        self._ids += ids
        self._weights += [weight] * len(ids)
        self._before += [-1, *range(start, end - 1)][: len(ids)]
        self._after += [*range(start + 1, end), -1][: len(ids)]
        for place, pair in enumerate(pairwise(ids), start):
            self._counts[pair] += weight
            self._places[pair].append(place)

    def most_frequent(self, at_least: int) -> Pair | None:
        """Takes the most frequent pair off the heap; None where none occurs that often."""
        if self._heap is None:
            self._heap = [(-count, *pair) for pair, count in self._counts.items()]
            heapq.heapify(self._heap)
        while self._heap:
            negative, *ids = heapq.heappop(self._heap)
            pair = (ids[0], ids[1])
            count = self._counts.get(pair, 0)
            if count == -negative and count >= max(1, at_least):
                return pair
            if 0 < count < -negative:
                heapq.heappush(self._heap, (-count, *pair))
        return None

    def merge(self, pair: Pair, new: int) -> int:
        """Merges a pair wherever it occurs, from left to right; returns how often it occurred."""
        changes: dict[Pair, int] = defaultdict(int)
        joined = 0
        for place in sorted(set(self._places.pop(pair))):
            if self._is_at(place, pair):
                self._join(place, new, changes)
                joined += self._weights[place]
        self._recount(changes)
        self._counts.pop(pair, None)
        return joined

    def _is_at(self, place: int, pair: Pair) -> bool:
        after = self._after[place]
        return self._ids[place] == pair[0] and after >= 0 and self._ids[after] == pair[1]

    def _join(self, place: int, new: int, changes: dict[Pair, int]) -> None:
        ids, weight = self._ids, self._weights[place]
        before, gone = self._before[place], self._after[place]
        after = self._after[gone]
        if before >= 0:
            changes[ids[before], ids[place]] -= weight
            changes[ids[before], new] += weight
            self._places[ids[before], new].append(before)
        if after >= 0:
            changes[ids[gone], ids[after]] -= weight
            changes[new, ids[after]] += weight
            self._places[new, ids[after]].append(place)
            self._before[after] = place
        ids[place], ids[gone], self._after[place] = new, -1, after

    def _recount(self, changes: Mapping[Pair, int]) -> None:
        assert self._heap is not None
        for pair, change in changes.items():
            self._counts[pair] += change
            if change > 0:
                heapq.heappush(self._heap, (-self._counts[pair], *pair))

    def uses(self) -> dict[int, int]:
        """Returns how often each id occurs."""
        found: Counter[int] = Counter()
        for id, weight in zip(self._ids, self._weights, strict=True):
            found[id] += weight
        del found[-1]
        return dict(found)
