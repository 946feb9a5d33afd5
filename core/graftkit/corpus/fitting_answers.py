"""The answers of a conversation that are examples of their own, as far as what stands before them fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from graftkit.corpus.layout import Piece
from graftkit.corpus.turns import ByAnswer, sizes_of
from graftkit.errors import DataError
from graftkit.interfaces.samples import Conversation

__all__ = ["MOST_LAID_OUT", "fitting_answers"]

MOST_LAID_OUT = 250_000
"""The most messages that a record's answers are laid out with, together: those of 500 answers to as many questions."""

_SEAM = 8
"""The most tokens at the end of a text, about, that may become others, or fewer, where the text goes on."""

_GROWTH = 1.1
"""By how much a conversation has grown when it is looked at again, so that looking costs little."""


def fitting_answers(
    conversation: Conversation,
    max_length: int,
    lay_out: Callable[[Conversation], Sequence[Piece]],
    count: Callable[[str], int],
) -> Iterator[Conversation]:
    """Yields the conversation up to each answer, until all that follow are too long.

    Each is laid out with every message before it, which takes time that grows with the square of a conversation's
    length. The answers after one whose prompt is longer than an example are left out where their layouts begin with
    that prompt: none of their tokens could be in an example. That is looked at for the next answer, for those at
    distances that double, and for the last one, since a template may drop what earlier layouts show, as reasoning.

    Args:
        conversation: The conversation.
        max_length: The most tokens of an example.
        lay_out: Lays a conversation out.
        count: Returns how many tokens a text has.

    Raises:
        DataError: Those that fit would be laid out with more than `MOST_LAID_OUT` messages together.
    """
    answers, sizes = ByAnswer(conversation), sizes_of(conversation)
    laid_out, size, seen, look_from = 0, 0, 0, float(max_length)
    for number, answer in enumerate(answers):
        laid_out += len(answer.messages)
        if laid_out > MOST_LAID_OUT:
            raise DataError(
                f"it has {len(answers):,} answers; with turns: each every one is laid out with all messages before it, "
                f"which for {number + 1:,} of them comes to over {MOST_LAID_OUT:,} messages",
                where=conversation.where,
                hint="Divide the record, lower data.max_length, or learn all answers in one example: data.turns: all.",
            )
        yield answer
        size, seen = size + sum(sizes[seen : len(answer.messages)]), len(answer.messages)
        if size >= look_from and number + 1 < len(answers):
            if _rest_is_too_long(answers, number, max_length, lay_out, count):
                return
            look_from = size * _GROWTH


def _rest_is_too_long(
    answers: ByAnswer,
    number: int,
    max_length: int,
    lay_out: Callable[[Conversation], Sequence[Piece]],
    count: Callable[[str], int],
) -> bool:
    """Tells whether the prompt of an answer is too long, and is how the layouts of later ones begin."""
    prompt = _prompt(lay_out(answers[number]), len(answers[number].messages) - 1)
    if count(prompt) <= max_length + _SEAM:
        return False
    return all(_begins_with(prompt, answers[later], lay_out) for later in _later(number, len(answers)))


def _prompt(pieces: Sequence[Piece], answer: int) -> str:
    """Returns what is laid out up to the end of the last message before the answer."""
    before = list(takewhile(lambda piece: piece.message != answer, pieces))
    while before and before[-1].message is None:
        before.pop()
    return "".join(piece.text for piece in before)


def _begins_with(prompt: str, answer: Conversation, lay_out: Callable[[Conversation], Sequence[Piece]]) -> bool:
    try:
        return "".join(piece.text for piece in lay_out(answer)).startswith(prompt)
    except DataError:  # it can't become an example at all
        return True


def _later(number: int, count: int) -> Iterator[int]:
    """Yields the numbers at distances of 1, 2, 4, ... from one, and the last."""
    distance = 1
    while number + distance < count - 1:
        yield number + distance
        distance *= 2
    yield count - 1
