"""What is learnt of a text: its label, those that it has, its number, or the tags of its words."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.interfaces.samples import (
    LabelledText,
    Sample,
    ScoredText,
    SimilarTexts,
    TaggedText,
    Text,
    TextWithLabels,
)
from graftkit.interfaces.scores import LABEL, LABELS, SCORE
from graftkit.store.token_store import ByExample

__all__ = [
    "COMPARED",
    "JudgedText",
    "TextTargets",
    "WholeText",
    "is_pair",
    "labels_in",
    "pair_as_json",
    "parts_of",
    "text_alone",
]

WholeText = LabelledText | TextWithLabels | ScoredText
"""A text of which something is learnt as a whole."""

JudgedText = WholeText | TaggedText
"""A text of which something is learnt, or of its words."""


COMPARED: Collection[LearnsFrom] = ("similar", "scored_pairs")
"""What is learnt of texts whose vectors are compared: each is a sequence of its own."""


def text_alone(sample: Sample) -> Sample:
    """Returns a labelled text without its label; other records as they are."""
    return Text(sample.text, sample.where) if isinstance(sample, LabelledText) else sample


def is_pair(sample: Sample) -> bool:
    """Tells whether a record has two texts of which something is learnt together."""
    return isinstance(sample, JudgedText) and sample.pair is not None


def parts_of(sample: JudgedText) -> tuple[str, ...]:
    """Returns the text of a record, or the two of a pair."""
    return (sample.text,) if sample.pair is None else sample.pair


def pair_as_json(first: str, second: str) -> str:
    """Returns the two texts of a pair as they are written where one text is asked for."""
    return json.dumps({"text": first, "text_pair": second}, ensure_ascii=False)


def labels_in(sample: Sample) -> tuple[str, ...]:
    """Returns the labels, or the tags, that a record has: one, several, or none."""
    match sample:
        case LabelledText():
            return (sample.label,)
        case TextWithLabels():
            return sample.labels
        case TaggedText():
            return sample.tags
    return ()


@dataclass(frozen=True)
class TextTargets:
    """What examples of texts have to be learnt, beside their tokens.

    Attributes:
        kind: What that is, as the `learns_from` of an objective calls it that judges texts.
        labels: The labels in the order of their numbers.
        negatives: How many of a record's negatives are learnt from at most, where texts are found by others.
        prompts: What is put before a query, and what before a document.
    """

    kind: LearnsFrom
    labels: Sequence[str] = ()
    negatives: int = 0
    prompts: tuple[str, str] = ("", "")

    def compared(self, sample: SimilarTexts | ScoredText) -> list[list[str]]:
        """Returns the texts of each example of a record, a query first, then its document, then negatives.

        Of a pair with a number they are the two.
        """
        before_query, before_document = self.prompts
        if isinstance(sample, ScoredText):
            first, second = parts_of(sample)
            return [[before_query + first, before_document + second]]
        negatives = [before_document + text for text in sample.negatives[: self.negatives]]
        query = before_query + sample.query
        return [[query, before_document + text, *negatives] for text in sample.positives]

    def unknown(self, sample: Sample) -> str | None:
        """Returns the first label of a record that is none of these; None where there is none."""
        return next((label for label in labels_in(sample) if label not in self._numbers), None)

    def columns(self, sample: WholeText) -> ByExample:
        """Returns the further columns of a text's example."""
        if isinstance(sample, ScoredText):
            return {SCORE: np.float32(sample.score)}
        if isinstance(sample, TextWithLabels):
            row = np.zeros(len(self.labels), np.uint8)
            row[[self._numbers[label] for label in sample.labels]] = 1
            return {LABELS: row}
        return {LABEL: np.int32(self._numbers[sample.label])}

    def numbers(self, sample: TaggedText) -> list[int]:
        """Returns the number of each word's tag."""
        return [self._numbers[tag] for tag in sample.tags]

    def shown(self, sample: JudgedText) -> tuple[str, str]:
        """Returns what is learnt of a text, as it is shown, and what that is called."""
        if isinstance(sample, TaggedText):
            return ", ".join(f"{word} {tag}" for word, tag in zip(sample.words, sample.tags, strict=True)), "tags"
        if isinstance(sample, ScoredText):
            return f"{sample.score:g}", "score"
        if isinstance(sample, TextWithLabels):
            return ", ".join(sample.labels), "labels"
        return sample.label, "label"

    def facts(self) -> dict[str, Any]:
        """Returns what the columns depend on, as JSON."""
        kind = {} if self.kind == "labels" else {"learnt": self.kind}
        compares = self.kind in COMPARED
        similar = {"negatives": self.negatives, "prompts": list(self.prompts)} if compares else {}
        return {"labels": self._numbers, **kind, **similar}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}
