"""A text of any length as tokens, a stretch at a time: the same ones as in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["encode_stretches"]

_AHEAD = 2048
"""Characters after a cut that must come out the same with what stands before it and without."""

_WORDS = 4
"""Words that must stand in it, unless it reaches to the text's end: a run of line ends alone tells nothing of a cut."""

_TOGETHER = 4
"""Stretches that are encoded in one call."""

EncodeBatch = Callable[[Sequence[str]], list[list[int]]]


@dataclass(slots=True)
class _Stretch:
    """Text up to a cut.

    Attributes:
        text: The text.
        parts: How many of the stretches given it consists of.
        wanted: How many it should consist of before it is tried.
    """

    text: str
    parts: int = 1
    wanted: int = 1


def encode_stretches(encode_batch: EncodeBatch, stretches: Iterable[str]) -> Iterator[tuple[list[int], int]]:
    """Yields the tokens of a text that comes in stretches, in order.

    A stretch is encoded together with the beginning of the next. Where the tokens end in those that the next stretch
    begins with when it stands alone, the cut between them changes nothing. Where they don't, both are taken as one.

    Args:
        encode_batch: Gives the ids of several texts.
        stretches: The text, cut into stretches; how well, decides about speed alone.

    Yields:
        Ids, and of how many stretches they are.
    """
    queue: list[_Stretch] = []
    for text in stretches:
        queue.append(_Stretch(text))
        _fill_first(queue)
        if len(queue) > _TOGETHER:
            yield from _encode_first(encode_batch, queue, ended=False)
    while len(queue) > 1:
        yield from _encode_first(encode_batch, queue, ended=True)
    for stretch in queue:
        yield encode_batch([stretch.text])[0], stretch.parts


def _encode_first(encode_batch: EncodeBatch, queue: list[_Stretch], *, ended: bool) -> Iterator[tuple[list[int], int]]:
    """Encodes up to the first cut that won't do, or of which too little is known, and takes that much off the queue."""
    heads = list(_heads(queue, ended=ended))
    wholes = [stretch.text + head for stretch, (head, _) in zip(queue, heads, strict=False)]
    found = encode_batch([*wholes, *(head for head, _ in heads)])
    for whole, head, (_, tells) in zip(found[: len(heads)], found[len(heads) :], heads, strict=True):
        if not head or not tells or whole[-len(head) :] != head:
            queue[0].wanted = 2 * queue[0].parts
            _fill_first(queue)
            return
        stretch = queue.pop(0)
        yield whole[: -len(head)], stretch.parts


def _heads(queue: Sequence[_Stretch], *, ended: bool) -> Iterator[tuple[str, bool]]:
    """Yields what follows each stretch, as far as it is known, and whether it tells whether the cut will do."""
    for place in range(1, len(queue)):
        following = "".join(stretch.text[: _AHEAD + 1] for stretch in queue[place:])
        if len(following) < _AHEAD and not ended:
            return
        head = following[:_AHEAD]
        yield head, (ended and head == following) or len(head.split(None, _WORDS)) > _WORDS


def _fill_first(queue: list[_Stretch]) -> None:
    """Joins following stretches to the first while it wants more.

    It wants twice as many each time, so that even a text without any good cut is encoded only a few times over.
    """
    first = queue[0]
    while len(queue) > 1 and first.parts < first.wanted:
        following = queue.pop(1)
        first.text += following.text
        first.parts += following.parts
