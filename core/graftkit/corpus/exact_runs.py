"""Encodes one record's runs as a model meets them: a prompt's tokens are fixed before those of its answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from graftkit.corpus.runs import Run
from graftkit.corpus.taken_space import TakenSpace
from graftkit.interfaces.tokenizer import Encoding, Tokenizer

__all__ = ["ExactRuns"]

_BEFORE = ("\n", ".", "a")
"""Characters after which a text may be encoded that follows another one."""


class ExactRuns:
    """Encodes records one by one, for any tokenizer: ids, and each one's weight in the loss.

    `graftkit.corpus.runs.RunsTogether` gives the same tokens, sooner, where the tokenizer tells where it cuts.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cuts_hold: bool | None = None

    def encode(self, runs: Sequence[Run]) -> tuple[list[int], list[float]]:
        """Encodes the whole text at once where that is right, or else part by part.

        It is wrong where a message contains a special token, and where a prompt is encoded differently alone than as
        the start of the whole.
        """
        return self._encode_whole(runs) or self.encode_stretches(runs)

    def _encode_whole(self, runs: Sequence[Run]) -> tuple[list[int], list[float]] | None:
        text = "".join(run.text for run in runs)
        encoding = self._tokenizer.encode_offsets(text, "all")
        written = [(run.special, at) for run, at in zip(runs, _starts(runs), strict=True) if run.special is not None]
        lefts = self._lefts(text, encoding, written)
        if lefts is None:
            return None
        cuts = [at for _, at in written]
        for number, (run, start) in enumerate(zip(runs, _starts(runs), strict=True)):
            opens = bool(number and run.loss_weight and not runs[number - 1].loss_weight)
            if opens and not self._same_alone(text, start, encoding.ids, lefts, cuts):
                return None
        return encoding.ids, list(_marks(runs, lefts))

    def _lefts(self, text: str, encoding: Encoding, written: Sequence[tuple[int, int]]) -> list[int] | None:
        """Returns where each token begins, special ones after the white space that they take.

        Args:
            text: The text.
            encoding: Its tokens.
            written: The special tokens that the template wrote, and where.

        Returns:
            None where others are found in the text.
        """
        specials = set(self._tokenizer.special_tokens.values())
        lefts = [left for left, _ in encoding.offsets]
        found = [place for place, id in enumerate(encoding.ids) if id in specials]
        if [encoding.ids[place] for place in found] != [id for id, _ in written]:
            return None
        for place, (_, start) in zip(found, written, strict=True):
            left = lefts[place]
            if left != start and (left > start or not text[left:start].isspace()):
                return None
            lefts[place] = start
        return lefts

    def _same_alone(self, text: str, place: int, ids: Sequence[int], lefts: Sequence[int], cuts: Sequence[int]) -> bool:
        """Tells whether the text before a place is encoded alone as it is in the whole text.

        Special tokens cut a text into parts that are encoded one by one, so that only what follows the last one has to
        be encoded again, and the time does not grow with the square of the turns. That they do is checked once.

        Args:
            text: The whole text.
            place: Where the part in question ends, in characters.
            ids: The whole text's token ids.
            lefts: Where each token begins.
            cuts: Where each special token begins.
        """
        last = bisect_left(lefts, place)
        near = bisect_left(cuts, place)
        cut = cuts[near - 1] if near and self._cuts_hold is not False else 0
        same: bool = ids[bisect_left(lefts, cut) : last] == self._tokenizer.encode(text[cut:place], "all")
        if cut and self._cuts_hold is None:
            whole = ids[:last] == self._tokenizer.encode(text[:place], "all")
            self._cuts_hold = whole == same
            return whole
        return same

    def encode_stretches(self, runs: Sequence[Run]) -> tuple[list[int], list[float]]:
        """Encodes what stands between special tokens part by part."""
        ids: list[int] = []
        loss_weights: list[float] = []
        group: list[Run] = []
        before: Run | None = None
        for run in [*runs, None]:
            if run is not None and run.special is None:
                group.append(run)
                continue
            self._encode_group(self._left_of(group, before, run), ids, loss_weights)
            group, before = [], run
            if run is not None and run.special is not None:
                ids.append(run.special)
                loss_weights.append(run.loss_weight)
        return ids, loss_weights

    def _left_of(self, group: Sequence[Run], before: Run | None, after: Run | None) -> list[Run]:
        """Returns neighbouring parts without the white space that the special tokens around them take.

        What ends a prompt stays, since in use no token follows it.
        """
        text = "".join(run.text for run in group)
        left, right = before.text if before else "", after.text if after else ""
        start = len(text) - len(self._space.without(text, left))
        end = start + len(self._space.without(text, left, right))
        parts = list(zip(group, _starts(group), strict=True))
        if after is not None and after.loss_weight:
            end = max([end, *(place + len(run.text) for run, place in parts if not run.loss_weight)])
        found = [(text[max(start, at) : min(end, at + len(run.text))], run.loss_weight) for run, at in parts]
        return [Run(part, weight) for part, weight in found if part]

    @cached_property
    def _space(self) -> TakenSpace:
        return TakenSpace(self._tokenizer)

    def _encode_group(self, group: Sequence[Run], ids: list[int], loss_weights: list[float]) -> None:
        """Encodes neighbouring parts as one text.

        Where the text before a part in the loss is encoded differently alone, the text is split there: at inference the
        prompt's tokens are fixed before the answer's first token.
        """
        rest = [(group, False)]
        while rest:
            part, follows = rest.pop()
            text = "".join(run.text for run in part)
            if not text:
                continue
            encoding = self._encode_part(text, follows)
            split = self._first_split(part, text, encoding, follows)
            if split:
                rest += [(part[split:], True), (part[:split], follows)]
            else:
                ids.extend(encoding.ids)
                loss_weights.extend(_marks(part, [left for left, _ in encoding.offsets]))

    def _first_split(self, group: Sequence[Run], text: str, encoding: Encoding, follows: bool) -> int:
        """Returns the number of the first part in the loss before which the text is encoded differently alone, or 0."""
        start = 0
        for number, run in enumerate(group):
            opens = number and run.loss_weight and not group[number - 1].loss_weight
            if opens and _tokens_before(start, encoding) != self._encode_part(text[:start], follows).ids:
                return number
            start += len(run.text)
        return 0

    def _encode_part(self, text: str, follows: bool) -> Encoding:
        """Encodes a part of a text: as its beginning, or so that it follows what has been encoded before.

        Many tokenizers put a space before every text; one that goes on with another text has none, or it would be
        decoded with a space that nobody wrote. Such a text is encoded after a character whose tokens are then dropped.
        """
        if not (follows and self._begins_with_a_space):
            return self._tokenizer.encode_offsets(text)
        for before in _BEFORE:
            head, found = self._tokenizer.encode(before), self._tokenizer.encode_offsets(before + text)
            offsets = found.offsets[len(head) :]
            if found.ids[: len(head)] == head and all(left >= len(before) for left, _ in offsets[:1]):
                moved = [(left - len(before), right - len(before)) for left, right in offsets]
                return Encoding(found.ids[len(head) :], moved)
        return self._tokenizer.encode_offsets(text)

    @cached_property
    def _begins_with_a_space(self) -> bool:
        """Whether the tokenizer puts something before a text that another text does not have."""
        head = self._tokenizer.encode(_BEFORE[0])
        return self._tokenizer.encode(f"{_BEFORE[0]}x") != [*head, *self._tokenizer.encode("x")]


def _tokens_before(place: int, encoding: Encoding) -> list[int]:
    return [token for token, (left, _) in zip(encoding.ids, encoding.offsets, strict=True) if left < place]


def _starts(runs: Sequence[Run]) -> list[int]:
    """Returns where each part begins in the text of all."""
    return list(accumulate((len(run.text) for run in runs), initial=0))[:-1]


def _marks(group: Sequence[Run], lefts: Sequence[int]) -> Iterator[float]:
    """Yields each token's weight in the loss: that of the part that it begins in."""
    ends, end = [], 0
    for run in group:
        end += len(run.text)
        ends.append(end)
    number = 0
    for left in lefts:
        while number < len(group) - 1 and left >= ends[number]:
            number += 1
        yield group[number].loss_weight
