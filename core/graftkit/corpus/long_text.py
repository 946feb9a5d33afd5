"""Encodes a text of any length in parts, to the same ids as in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["encode_stretches"]

_AHEAD = 2048
"""Characters after a cut that must have the same ids with and without the text before it."""

_WORDS = 4
"""Words that those characters must contain, unless the text ends there; line ends alone are no evidence."""

_TOGETHER = 4
"""Parts that are encoded in one call."""

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
    """Yields the ids of a text that is given in parts.

    A part is encoded together with the beginning of the next. If the ids end with those of that beginning alone, the
    cut changes nothing; otherwise both parts are joined.

    Args:
        encode_batch: Returns the ids of several texts.
        stretches: The parts of the text, in order; where it is cut affects speed alone.

    Yields:
        Ids, and the number of parts that they are of.
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
    """Encodes up to the first cut that changes ids or can't be verified yet, and removes those parts from the queue."""
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
    """Yields the text after each part, and whether it is enough to verify the cut."""
    for place in range(1, len(queue)):
        following = "".join(stretch.text[: _AHEAD + 1] for stretch in queue[place:])
        if len(following) < _AHEAD and not ended:
            return
        head = following[:_AHEAD]
        yield head, (ended and head == following) or len(head.split(None, _WORDS)) > _WORDS


def _fill_first(queue: list[_Stretch]) -> None:
    """Joins the following parts to the first, up to the number wanted.

    That number doubles each time, so that a text without a valid cut is encoded only a few times.
    """
    first = queue[0]
    while len(queue) > 1 and first.parts < first.wanted:
        following = queue.pop(1)
        first.text += following.text
        first.parts += following.parts
