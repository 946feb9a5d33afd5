"""Stretches of a rendered record with one weight in the loss, and many records encoded together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.long_text import encode_stretches
from graftkit.corpus.stretches import pieces_of
from graftkit.interfaces.samples import LONG_TEXT
from graftkit.interfaces.tokenizer import CertainCuts, Tokenizer

__all__ = ["Run", "RunsTogether", "Weighted"]

_SHORT = 256
"""The most characters of a text whose tokens are kept for when it comes again, as the first words of answers do."""

_KEPT = 1 << 14

Weighted = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Token ids and each one's weight in the loss, both `[tokens]`."""


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a rendered record with one weight in the loss, or a special token.

    Attributes:
        text: The text; a special token's own text.
        loss_weight: What each of its tokens weighs in the loss; 0 where it is not learnt.
        special: The special token's id, or None.
    """

    text: str
    loss_weight: float
    special: int | None = None


class RunsTogether:
    """Encodes many records in one call, for tokenizers that tell where they cut every text.

    What stands between special tokens is cut before and after each place where the weight changes, as near to it as the
    tokenizer cuts for certain. Only the short text between those cuts, where the tokens of a prompt may go on into an
    answer, has to be encoded in the dear way; all others have one weight, and no place in them has to be found again.

    Args:
        tokenizer: The tokenizer.
        exact: Encodes neighbouring runs without special tokens in the dear way: ids and weights.
    """

    def __init__(self, tokenizer: Tokenizer, exact: Callable[[Sequence[Run]], tuple[list[int], list[float]]]) -> None:
        self._tokenizer, self._exact = tokenizer, exact
        self._cuts = tokenizer if isinstance(tokenizer, CertainCuts) else None
        self._kept: dict[tuple[tuple[str, float], ...], Weighted] = {}

    def takes(self, runs: Sequence[Run]) -> bool:
        """Tells whether the tokenizer says enough of where it cuts for a record to be encoded so."""
        if self._cuts is None:
            return False
        return self._cuts.cuts_at_specials or all(run.special is None for run in runs)

    def encode(self, records: Iterable[Sequence[Run]]) -> list[Weighted]:
        """Returns the tokens of records that it takes."""
        texts: dict[str, int] = {}
        laid_out = [list(self._parts(runs, texts)) for runs in records]
        short = iter(self._tokenizer.encode_batch([text for text in texts if len(text) <= LONG_TEXT]) if texts else ())
        ids = [self._in_stretches(text) if len(text) > LONG_TEXT else np.array(next(short), np.int64) for text in texts]
        return [_joined(parts, ids) for parts in laid_out]

    def _in_stretches(self, text: str) -> NDArray[np.int64]:
        stretches = encode_stretches(self._tokenizer.encode_batch, pieces_of(text))
        return np.concatenate([np.array(ids, np.uint32) for ids, _ in stretches]).astype(np.int64)

    def _parts(self, runs: Sequence[Run], texts: dict[str, int]) -> Iterator[Weighted | tuple[int, float]]:
        """Yields the parts of a record: tokens, or the number of a text in `texts` with the weight of its tokens."""
        for group in _groups(runs):
            if group[0].special is not None:
                yield np.array([group[0].special]), np.array([group[0].loss_weight], np.float32)
                continue
            for part in self._cut(group):
                if _has_one_weight(part):
                    text = part[0].text if len(part) == 1 else "".join(run.text for run in part)
                    if text:
                        yield texts.setdefault(text, len(texts)), part[0].loss_weight
                else:
                    yield self._encoded(part)

    def _encoded(self, part: Sequence[Run]) -> Weighted:
        key = tuple((run.text, run.loss_weight) for run in part)
        found = self._kept.get(key)
        if found is None:
            ids, weights = self._exact(part)
            found = np.array(ids, np.int64), np.array(weights, np.float32)
            if sum(len(run.text) for run in part) <= _SHORT:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[key] = found
        return found

    def _cut(self, group: Sequence[Run]) -> Iterator[Sequence[Run]]:
        """Cuts neighbouring runs so that those between two cuts have one weight, or are few."""
        if _has_one_weight(group):
            yield group
            return
        text = "".join(run.text for run in group)
        yield from _divided(group, self._places(text, _seams(group)))

    def _places(self, text: str, seams: Sequence[int]) -> list[int]:
        """Returns where to cut: at each seam, or else at the nearest places before and after it."""
        assert self._cuts is not None
        between, found = self._cuts.cuts_between, set[int]()
        for number, seam in enumerate(seams):
            if between(text[seam - 1], text[seam]):
                found.add(seam)
                continue
            first = seams[number - 1] if number else 0
            last = seams[number + 1] if number + 1 < len(seams) else len(text)
            for near in (range(seam - 1, first, -1), range(seam + 1, last)):
                place = next((place for place in near if between(text[place - 1], text[place])), None)
                if place is not None:
                    found.add(place)
        return sorted(found)


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Yields each special token alone, and what stands between them."""
    group: list[Run] = []
    for run in runs:
        if run.special is None:
            group.append(run)
            continue
        if group:
            yield group
        yield [run]
        group = []
    if group:
        yield group


def _has_one_weight(runs: Sequence[Run]) -> bool:
    return all(run.loss_weight == runs[0].loss_weight for run in runs)


def _seams(group: Sequence[Run]) -> list[int]:
    """Returns the places within the text of some runs at which the weight changes."""
    found, place, weight = [], 0, group[0].loss_weight
    for run in group:
        if run.loss_weight != weight and place:
            found.append(place)
        place, weight = place + len(run.text), run.loss_weight
    return sorted({seam for seam in found if seam < place})


def _divided(group: Sequence[Run], places: Sequence[int]) -> Iterator[list[Run]]:
    """Yields the runs between places of their text; one of no text that stands at a place is left out."""
    part: list[Run] = []
    begin, cuts, known = 0, iter(places), set(places)
    cut = next(cuts, None)
    for run in group:
        end, taken = begin + len(run.text), begin
        while cut is not None and cut <= end:
            if cut > taken:
                part.append(replace(run, text=run.text[taken - begin : cut - begin]))
            if part:
                yield part
            part, taken, cut = [], cut, next(cuts, None)
        if end > taken or (end == begin and begin not in known):
            part.append(replace(run, text=run.text[taken - begin :]))
        begin = end
    if part:
        yield part


def _joined(parts: Sequence[Weighted | tuple[int, float]], encoded: Sequence[NDArray[np.int64]]) -> Weighted:
    ids: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    weights: list[NDArray[Any]] = [np.zeros(0, np.float32)]
    for found, weight in parts:
        if isinstance(found, int):
            ids.append(encoded[found])
            weights.append(np.full(len(encoded[found]), weight, np.float32))
        else:
            ids.append(found)
            weights.append(np.asarray(weight))
    return np.concatenate(ids), np.concatenate(weights)
