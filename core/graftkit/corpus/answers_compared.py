"""Records whose answers are compared: pairs, and answers that are wanted or not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.text_targets import TEXT_SHAPES, is_pair
from graftkit.errors import DataError
from graftkit.interfaces.objective import LearnsFrom
from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.samples import (
    ANSWERED,
    Completion,
    Conversation,
    LabelledAnswer,
    LongText,
    PreferencePair,
    Prompt,
    Sample,
    ScoredText,
    SimilarTexts,
    Text,
    TextPrompt,
    Tokens,
)
from graftkit.store.token_store import SEQUENCE, ByExample, Example

__all__ = [
    "WANTED",
    "AsLabelled",
    "AsPrompts",
    "TwoAnswers",
    "WithMismatched",
    "as_one_example",
    "check_learns_from",
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


_SHAPES: dict[type[Any], tuple[LearnsFrom, str]] = {
    **dict.fromkeys((PreferencePair, TwoAnswers), ("pairs", "a chosen and a rejected answer")),
    LabelledAnswer: ("labelled", "an answer that is labelled as wanted or not"),
    **dict.fromkeys((Prompt, TextPrompt), ("prompts", "a prompt and no answer")),
    **{shape.sample: (kind, f"a text and {shape.beside}") for kind, shape in TEXT_SHAPES.items()},
    SimilarTexts: ("similar", "a text and others that are to be found by it"),
    **dict.fromkeys((Text, LongText), ("texts", "a text alone")),
    Tokens: ("answers", "tokens"),
}
_WANTED_BY: dict[LearnsFrom, str] = {
    "answers": "each record's answer or text",
    "prompts": 'prompts that are answered: messages, {"prompt": ...} or {"prompt": ..., "completion": ...}',
    "pairs": 'pairs: {"prompt": ..., "chosen": ..., "rejected": ...}',
    "labelled": 'labelled answers: {"prompt": ..., "completion": ..., "label": true}, or pairs: {"chosen": ...}',
    "texts": 'plain texts: {"text": ...}',
    "labels": 'texts with labels: {"text": ..., "label": ...}',
    "label_sets": 'texts with lists of labels: {"text": ..., "labels": ["...", "..."]}',
    "scores": 'texts with numbers: {"text": ..., "score": 0.5}',
    "scored_pairs": 'pairs of texts with numbers: {"sentence1": ..., "sentence2": ..., "score": 0.5}',
    "similar": 'texts that are found by another: {"query": ..., "positive": ...}, and perhaps {"negative": ...}',
    "tags": 'words with tags: {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}',
}
_COLUMNS = "Name the columns that hold the text and its {0}: columns: {{text: ..., {0}: ...}}."
_LISTS = " In CSV, where lists are text, say which columns hold some: reader: {{use: csv, lists: [{}]}}."
_WORDS = (
    "Name the columns that hold the words and their tags: format: tags, columns: {tokens: ..., tags: ...}."
    + _LISTS.format("tokens, tags")
)
_NUMBERS = (
    "Name the columns that hold the text and its number: format: score, columns: {text: ..., score: ...}; in CSV, "
    "where numbers are text, with format: {use: score, as_text: true}."
)
_BY_ANOTHER = "Name the columns that hold the two: format: retrieval, columns: {query: ..., positive: ...}."
_PAIR_WITH_NUMBER = (
    "Name the columns that hold the two and their number: format: score, columns: {text: ..., text_pair: ..., score: "
    "...}."
)
_AS_TEXTS = ("texts", *TEXT_SHAPES, "scored_pairs")
"""The shapes of records of which whoever learns texts learns the text alone."""
_INSTEAD: dict[tuple[str, str], str] = {
    ("answers", "pairs"): "To learn from both: objective: dpo. To learn the chosen ones alone: format: {use: "
    "preference, learn: chosen}.",
    (
        "answers",
        "labelled",
    ): "To learn from both kinds: objective: kto. To learn the wanted ones alone, write them to a "
    "file of their own, jq -c 'select(.label)' FILE > wanted.jsonl; to learn all of them: format: prompt-completion.",
    ("pairs", "labelled"): "From labelled answers learns objective: kto.",
    **{("similar", shape): _BY_ANOTHER for shape in ("answers", "texts", "labels", "label_sets", "scores", "pairs")},
    ("similar", "scored_pairs"): "From pairs of texts with a number learns objective: similarity.",
    **{("scored_pairs", shape): _PAIR_WITH_NUMBER for shape in ("answers", "texts", "labels", "label_sets", "pairs")},
    ("scored_pairs", "scores"): f"From a text with a number learns objective: regression. {_PAIR_WITH_NUMBER}",
    **{
        (learns_from, "similar"): "From texts that are found by another learns objective: embedding."
        for learns_from in ("answers", "prompts", "pairs", "labelled", "texts", *TEXT_SHAPES, "scored_pairs")
    },
    ("labels", "pairs"): "From pairs learn the objectives dpo, orpo, simpo and reward.",
    **{
        (learns_from, shape): _COLUMNS.format(column) + lists
        for learns_from, column, lists in (("labels", "label", ""), ("label_sets", "labels", _LISTS.format("labels")))
        for shape in ("texts", "answers")
    },
    **{("tags", shape): _WORDS for shape in ("texts", "answers", "label_sets")},
    **{
        (learns_from, "tags"): "From tags of words learns objective: token-classification."
        for learns_from in ("pairs", "labels", "label_sets", "scores")
    },
    ("tags", "labels"): "From labels of texts learns objective: classification.",
    ("scores", "texts"): _NUMBERS,
    ("scores", "answers"): _NUMBERS,
    ("texts", "answers"): "Say which column holds the text: {path: FILE, format: text, columns: {text: ...}}.",
    ("pairs", "labels"): "From texts with labels learns objective: classification.",
    ("labels", "label_sets"): "From several labels of a text learns objective: multi-label-classification.",
    **{
        (learns_from, shape): "From numbers learns objective: regression."
        for learns_from in ("labels", "label_sets")
        for shape in ("scores", "scored_pairs")
    },
    ("label_sets", "labels"): 'From one label of a text learns objective: classification; for this one write "labels": '
    '["..."].',
    ("scores", "labels"): "Where the label is a number, say so: format: score, columns: {score: label}; in CSV, where "
    "numbers are text, with format: {use: score, as_text: true}. From labels learns objective: classification.",
    ("scores", "label_sets"): "From several labels of a text learns objective: multi-label-classification.",
}


def check_learns_from(sample: Sample, learns_from: LearnsFrom, objective: str) -> None:
    """Refuses a record that an objective doesn't learn from.

    Raises:
        DataError: It is of another shape.
    """
    shape, described = _SHAPES.get(type(sample), ("answers", "an answer"))
    if learns_from in ("pairs", "labelled") and shape in ("answers", "texts"):
        described = "nothing that its answer is compared with"
    if isinstance(sample, ScoredText) and is_pair(sample):
        shape, described = "scored_pairs", "two texts and a number"
    if learns_from == "prompts" and shape in ("prompts", "answers") and not isinstance(sample, Tokens):
        if isinstance(sample, Completion) and not sample.prompt:
            raise DataError(f"the prompt is empty, and the objective {objective} has it answered", where=sample.where)
        return
    if learns_from == shape or (learns_from in ("answers", "texts") and shape in _AS_TEXTS):
        return
    if (learns_from, shape) in (("labelled", "pairs"), ("scores", "scored_pairs")):  # the first by `AsLabelled`
        return
    raise DataError(
        f"the record has {described}, and the objective {objective} learns from {_WANTED_BY[learns_from]}",
        where=sample.where,
        hint=_INSTEAD.get((learns_from, shape), "Leave out `objective` to learn the answers as they are."),
    )
