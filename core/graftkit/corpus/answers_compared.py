"""Records whose answers are compared: pairs, and answers that are wanted or not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.samples import (
    ANSWERED,
    Completion,
    Conversation,
    LabelledAnswer,
    PreferencePair,
    Prompt,
    Sample,
)
from graftkit.store.token_store import SEQUENCE, ByExample, Example

__all__ = [
    "WANTED",
    "AsLabelled",
    "AsPrompts",
    "TwoAnswers",
    "WithMismatched",
    "as_one_example",
    "labelled_in",
    "shown",
    "with_mismatched",
]

WANTED = "wanted"
"""The column by example that says of a labelled answer whether it is wanted."""


@dataclass(frozen=True, slots=True)
class WithMismatched(LabelledAnswer):
    """A labelled answer, and the answer of another record to its prompt.

    KTO estimates from such how far the model has moved from where it started (Ethayarajh et al., 2024,
    https://arxiv.org/abs/2402.01306, section 4.1).

    Attributes:
        mismatched: Its prompt with the other record's answer.
    """

    mismatched: Conversation | Completion


@dataclass(frozen=True, slots=True)
class TwoAnswers(PreferencePair):
    """A pair that is learnt as two labelled answers, of which one is wanted: one record, but two examples."""


@dataclass(frozen=True, slots=True)
class TwoWithMismatched(TwoAnswers):
    """Such a pair, and the answers of another record to its prompt.

    Attributes:
        labelled: The wanted answer and the other one, each with its mismatched one.
    """

    labelled: tuple[WithMismatched, WithMismatched]


class _As:
    """A format of which some samples are taken for others.

    Args:
        format: The format.
    """

    def __init__(self, format: RecordFormat) -> None:
        self._format = format

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Asks the format."""
        return self._format.columns(found)


class AsLabelled(_As):
    """A format whose pairs are learnt as labelled answers."""

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        sample = self._format.sample(record, where)
        if isinstance(sample, PreferencePair):
            return TwoAnswers(sample.chosen, sample.rejected, sample.where)
        return sample


class AsPrompts(_As):
    """A format whose conversations that end before an answer are prompts, whatever is answered earlier in them."""

    def sample(self, record: Mapping[str, Any], where: str) -> Sample:
        """Returns the format's sample of a record."""
        sample = self._format.sample(record, where)
        if type(sample) is Conversation and sample.messages[-1].role in ANSWERED:
            return Prompt(sample.messages, sample.where, sample.tools)
        return sample


def labelled_in(sample: Sample) -> tuple[LabelledAnswer, ...]:
    """Returns the labelled answers of a record: one, the two of a pair that is learnt so, or none."""
    match sample:
        case LabelledAnswer():
            return (sample,)
        case TwoWithMismatched():
            return sample.labelled
        case TwoAnswers(chosen, rejected, where):
            return LabelledAnswer(chosen, True, where), LabelledAnswer(rejected, False, where)
    return ()


def shown(sample: Sample) -> Sample:
    """Returns the conversation or completion that a record shows first: of a pair the chosen one."""
    match sample:
        case PreferencePair():
            return sample.chosen
        case LabelledAnswer():
            return sample.answer
    return sample


def with_mismatched(samples: Iterator[Sample], before: Sample) -> Iterator[Sample]:
    """Gives each labelled answer that of the record before it; other records stay as they are.

    Of a pair the wanted answer is given that of the pair before it, and the unwanted one its unwanted one: never the
    other answer to the same prompt.

    Args:
        samples: The records.
        before: The record before the first one; the last of all where that is the first of all.
    """

    def after_it() -> Iterator[Sample]:
        yield before
        yield from samples

    for former, sample in pairwise(after_it()):
        others = labelled_in(former)
        given = [
            WithMismatched(each.answer, each.wanted, each.where, _answered_by(each.answer, other.answer))
            for each, other in zip(labelled_in(sample), [*others, *others], strict=False)
        ]
        match sample, given:
            case TwoAnswers(chosen, rejected, where), [wanted, unwanted]:
                yield TwoWithMismatched(chosen, rejected, where, (wanted, unwanted))
            case LabelledAnswer(), [labelled]:
                yield labelled
            case _:
                yield sample


def _answered_by(prompt: Conversation | Completion, other: Conversation | Completion) -> Conversation | Completion:
    answer = other.completion if isinstance(other, Completion) else other.messages[-1].content
    if isinstance(prompt, Completion):
        return replace(prompt, completion=answer)
    last = prompt.messages[-1]
    if isinstance(other, Conversation):
        theirs = other.messages[-1]
        said = replace(last, content=answer, reasoning=theirs.reasoning, tool_calls=theirs.tool_calls)
    else:
        said = replace(last, content=answer, reasoning="", tool_calls=())
    return replace(prompt, messages=(*prompt.messages[:-1], said))


def as_one_example(sample: Sample, sequences: Sequence[Example]) -> Example:
    """Puts the sequences of a record whose answers are compared one after the other.

    Args:
        sample: The record.
        sequences: Its sequences, each as an example of its own.

    Returns:
        One example: its prompt is that of the first, and a column says which token is of which sequence.
    """
    numbers = [np.full(len(sequence.ids), number, np.uint8) for number, sequence in enumerate(sequences)]
    by_example: ByExample = {WANTED: np.uint8(sample.wanted)} if isinstance(sample, LabelledAnswer) else {}
    return Example(
        np.concatenate([sequence.ids for sequence in sequences]),
        np.concatenate([sequence.loss_weight for sequence in sequences]),
        sequences[0].prompt_length,
        {**_joined([sequence.by_token for sequence in sequences]), SEQUENCE: np.concatenate(numbers)},
        by_example,
    )


def _joined(columns: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
