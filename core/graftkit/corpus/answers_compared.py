"""Records whose answers are compared: pairs, and answers that are wanted or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from graftkit.corpus.text_targets import TEXT_SHAPES
from graftkit.errors import DataError
from graftkit.interfaces.objective import LearnsFrom
from graftkit.interfaces.samples import (
    Completion,
    Conversation,
    LabelledAnswer,
    LongText,
    PreferencePair,
    Sample,
    Text,
)
from graftkit.store.token_store import SEQUENCE, ByExample, Example

__all__ = ["WANTED", "WithMismatched", "as_one_example", "check_learns_from", "shown", "with_mismatched"]

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

    Args:
        samples: The records.
        before: The record before the first one; the last of all where that is the first of all.
    """

    def after_it() -> Iterator[Sample]:
        yield before
        yield from samples

    for former, sample in pairwise(after_it()):
        if isinstance(sample, LabelledAnswer) and isinstance(former, LabelledAnswer):
            other = _answered_by(sample.answer, former.answer)
            yield WithMismatched(sample.answer, sample.wanted, sample.where, other)
        else:
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
        {SEQUENCE: np.concatenate(numbers)},
        by_example,
    )


_SHAPES: dict[type[Any], tuple[LearnsFrom, str]] = {
    PreferencePair: ("pairs", "a chosen and a rejected answer"),
    LabelledAnswer: ("labelled", "an answer that is labelled as wanted or not"),
    **{shape.sample: (kind, f"a text and {shape.beside}") for kind, shape in TEXT_SHAPES.items()},
    Text: ("texts", "nothing that its answer is compared with"),
    LongText: ("texts", "nothing that its answer is compared with"),
}
_WANTED_BY: dict[LearnsFrom, str] = {
    "answers": "each record's answer or text",
    "pairs": 'pairs: {"prompt": ..., "chosen": ..., "rejected": ...}',
    "labelled": 'labelled answers: {"prompt": ..., "completion": ..., "label": true}, the label true or false',
    "texts": 'plain texts: {"text": ...}',
    "labels": 'texts with labels: {"text": ..., "label": ...}',
    "label_sets": 'texts with lists of labels: {"text": ..., "labels": ["...", "..."]}',
    "scores": 'texts with numbers: {"text": ..., "score": 0.5}',
    "tags": 'words with tags: {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}',
}
_COLUMNS = "Name the columns that hold the text and its {0}: columns: {{text: ..., {0}: ...}}."
_WORDS = "Name the columns that hold the words and their tags: format: tags, columns: {tokens: ..., tags: ...}."
_NUMBERS = (
    "Name the columns that hold the text and its number: format: score, columns: {text: ..., score: ...}; in CSV, "
    "where numbers are text, with format: {use: score, as_text: true}."
)
_AS_TEXTS = ("texts", *TEXT_SHAPES)
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
    ("labelled", "pairs"): "From pairs learn the objectives dpo, orpo, simpo and reward.",
    ("labels", "pairs"): "From pairs learn the objectives dpo, orpo, simpo and reward.",
    **{
        (learns_from, shape): _COLUMNS.format(column)
        for learns_from, column in (("labels", "label"), ("label_sets", "labels"))
        for shape in ("texts", "answers")
    },
    **{("tags", shape): _WORDS for shape in ("texts", "answers")},
    **{
        (learns_from, "tags"): "From tags of words learns objective: token-classification."
        for learns_from in ("pairs", "labels", "label_sets", "scores")
    },
    ("tags", "labels"): "From labels of texts learns objective: classification.",
    (
        "tags",
        "label_sets",
    ): _WORDS,
    ("scores", "texts"): _NUMBERS,
    ("scores", "answers"): _NUMBERS,
    ("texts", "answers"): "Say which column holds the text: {path: FILE, format: text, columns: {text: ...}}.",
    ("pairs", "labels"): "From texts with labels learns objective: classification.",
    ("labels", "label_sets"): "From several labels of a text learns objective: multi-label-classification.",
    ("labels", "scores"): "From numbers learns objective: regression.",
    ("label_sets", "labels"): 'From one label of a text learns objective: classification; for this one write "labels": '
    '["..."].',
    ("label_sets", "scores"): "From numbers learns objective: regression.",
    ("scores", "labels"): "Where the label is a number, say so: format: score, columns: {score: label}; in CSV, where "
    "numbers are text, with format: {use: score, as_text: true}. From labels learns objective: classification.",
    ("scores", "label_sets"): "From several labels of a text learns objective: multi-label-classification.",
}


def check_learns_from(sample: Sample, learns_from: LearnsFrom, objective: str) -> None:
    """Refuses a record that an objective doesn't learn from.

    Raises:
        DataError: It is of another shape.
    """
    shape, described = _SHAPES.get(type(sample), ("answers", "nothing that its answer is compared with"))
    if learns_from == shape or (learns_from in ("answers", "texts") and shape in _AS_TEXTS):
        return
    raise DataError(
        f"the record has {described}, and the objective {objective} learns from {_WANTED_BY[learns_from]}",
        where=sample.where,
        hint=_INSTEAD.get((learns_from, shape), "Leave out `objective` to learn the answers as they are."),
    )
