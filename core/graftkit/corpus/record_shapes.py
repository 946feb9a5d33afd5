"""The shapes of records: one table of what each has, is called and is learnt by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.corpus.answers_compared import TwoAnswers
from graftkit.corpus.text_targets import COMPARED, is_pair
from graftkit.errors import DataError
from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.interfaces.samples import (
    Completion,
    LabelledAnswer,
    LabelledText,
    LongText,
    PreferencePair,
    Prompt,
    Sample,
    ScoredText,
    SimilarTexts,
    TaggedText,
    Text,
    TextPrompt,
    TextWithLabels,
    Tokens,
)

__all__ = ["SHAPES", "TEXT_SHAPES", "RecordShape", "check_learns_from", "shape_of"]


@dataclass(frozen=True, slots=True)
class RecordShape:
    """Records of which objectives learn the same.

    Attributes:
        kind: What the `learns_from` of an objective calls it.
        samples: Their classes.
        described: What a record has, in words.
        wanted: What they are to whoever learns from them, with an example.
        counted: What one and several of them are called where more than their text is learnt, or less than an answer.
        objective: Which of graftkit's objectives learns from them, where one is meant for them.
        measured: What a model's scores tell of a text that has learnt from such texts as wholes, or of their words.
        several: Whether a text may have several labels, each of which is judged by itself.
        learnt: What of them the objective learns from, in words.
        columns: How the columns are named where such records were read as texts or answers.
    """

    kind: LearnsFrom
    samples: tuple[type[Any], ...]
    described: str
    wanted: str
    counted: tuple[str, str] | None = None
    objective: str = ""
    measured: str = ""
    several: bool = False
    learnt: str = ""
    columns: str = ""

    @property
    def beside(self) -> str:
        """What records have beside their text, in words."""
        return self.described.removeprefix("a text and ")

    @property
    def learnt_by(self) -> str:
        """Which objective learns from them, as a hint; "" where none is meant for them."""
        return f"From {self.learnt} learns objective: {self.objective}." if self.learnt else ""


_LABELS = "Name the columns that hold the text and its {0}: columns: {{text: ..., {0}: ...}}."
_LISTS = " In CSV, where lists are text, say which columns hold some: reader: {{use: csv, lists: [{}]}}."


SHAPES: Mapping[LearnsFrom, RecordShape] = {
    shape.kind: shape
    for shape in (
        RecordShape("answers", (), "an answer", "each record's answer or text"),
        RecordShape(
            "prompts",
            (Prompt, TextPrompt),
            "a prompt and no answer",
            'prompts that are answered: messages, {"prompt": ...} or {"prompt": ..., "completion": ...}',
            ("prompt", "prompts"),
        ),
        RecordShape(
            "pairs",
            (PreferencePair, TwoAnswers),
            "a chosen and a rejected answer",
            'pairs: {"prompt": ..., "chosen": ..., "rejected": ...}',
            ("pair of answers", "pairs of answers"),
        ),
        RecordShape(
            "labelled",
            (LabelledAnswer,),
            "an answer that is labelled as wanted or not",
            'labelled answers: {"prompt": ..., "completion": ..., "label": true}, or pairs: {"chosen": ...}',
            ("record of wanted or unwanted answers", "records of wanted or unwanted answers"),
            objective="kto",
            learnt="labelled answers",
        ),
        RecordShape(
            "texts",
            (Text, LongText),
            "a text alone",
            'plain texts: {"text": ...}',
            columns="Say which column holds the text: {path: FILE, format: text, columns: {text: ...}}.",
        ),
        RecordShape(
            "labels",
            (LabelledText,),
            "a text and a label",
            'texts with labels: {"text": ..., "label": ...}',
            ("text with a label", "texts with a label"),
            "classification",
            "one label of a text",
            learnt="labels of texts",
            columns=_LABELS.format("label"),
        ),
        RecordShape(
            "label_sets",
            (TextWithLabels,),
            "a text and a list of labels",
            'texts with lists of labels: {"text": ..., "labels": ["...", "..."]}',
            ("text with its labels", "texts with their labels"),
            "multi-label-classification",
            "each label by itself",
            several=True,
            learnt="several labels of a text",
            columns=_LABELS.format("labels") + _LISTS.format("labels"),
        ),
        RecordShape(
            "scores",
            (ScoredText,),
            "a text and a number",
            'texts with numbers: {"text": ..., "score": 0.5}',
            ("text with a number", "texts with a number"),
            "regression",
            "one number",
            learnt="numbers",
            columns="Name the columns that hold the text and its number: format: score, columns: {text: ..., score: "
            "...}; in CSV, where numbers are text, with format: {use: score, as_text: true}.",
        ),
        RecordShape(
            "tags",
            (TaggedText,),
            "a text and tags of its words",
            'words with tags: {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}',
            ("text with tags", "texts with tags"),
            "token-classification",
            "a tag of each word",
            learnt="tags of words",
            columns="Name the columns that hold the words and their tags: format: tags, columns: {tokens: ..., tags: "
            "...}." + _LISTS.format("tokens, tags"),
        ),
        RecordShape(
            "scored_pairs",  # of `ScoredText`, those that have two
            (),
            "two texts and a number",
            'pairs of texts with numbers: {"sentence1": ..., "sentence2": ..., "score": 0.5}',
            ("pair of texts with a number", "pairs of texts with a number"),
            "similarity",
            learnt="pairs of texts with a number",
            columns="Name the columns that hold the two and their number: format: score, columns: {text: ..., "
            "text_pair: ..., score: ...}.",
        ),
        RecordShape(
            "similar",
            (SimilarTexts,),
            "a text and others that are to be found by it",
            'texts that are found by another: {"query": ..., "positive": ...}, and perhaps {"negative": ...}',
            ("query with its documents", "queries with their documents"),
            "embedding",
            learnt="texts that are found by another",
            columns="Name the columns that hold the two: format: retrieval, columns: {query: ..., positive: ...}.",
        ),
    )
}
"""The shapes, by what is learnt of them."""

TEXT_SHAPES = {kind: shape for kind, shape in SHAPES.items() if shape.measured}
"""Those of texts of which something is learnt, or of their words."""

_AS_TEXTS = ("texts", *TEXT_SHAPES, "scored_pairs")
"""Those of which whoever learns texts learns the text alone."""

_BY_CLASS: Mapping[type[Any], RecordShape] = {sample: shape for shape in SHAPES.values() for sample in shape.samples}


def shape_of(sample: Sample) -> RecordShape:
    """Returns the shape of a record; a pair of texts with a number has that of a text with one."""
    return _BY_CLASS.get(type(sample), SHAPES["answers"])


_INSTEAD: Mapping[tuple[str, str], str] = {
    ("answers", "pairs"): "To learn from both: objective: dpo. To learn the chosen ones alone: format: {use: "
    "preference, learn: chosen}.",
    (
        "answers",
        "labelled",
    ): "To learn from both kinds: objective: kto. To learn the wanted ones alone, write them to a "
    "file of their own, jq -c 'select(.label)' FILE > wanted.jsonl; to learn all of them: format: prompt-completion.",
    ("labels", "pairs"): "From pairs learn the objectives dpo, orpo, simpo and reward.",
    ("labels", "scored_pairs"): SHAPES["scores"].learnt_by,
    ("label_sets", "scored_pairs"): SHAPES["scores"].learnt_by,
    ("label_sets", "labels"): 'From one label of a text learns objective: classification; for this one write "labels": '
    '["..."].',
    ("scores", "labels"): "Where the label is a number, say so: format: score, columns: {score: label}; in CSV, where "
    "numbers are text, with format: {use: score, as_text: true}. From labels learns objective: classification.",
    (
        "scored_pairs",
        "scores",
    ): f"From a text with a number learns objective: regression. {SHAPES['scored_pairs'].columns}",
    ("tags", "label_sets"): SHAPES["tags"].columns,
}
"""What to do, by what an objective learns from and the shape that a record has, where that is nothing usual."""


def _way_out(learns_from: LearnsFrom, shape: LearnsFrom) -> str:
    """Says what to do about a record of a shape that an objective does not learn from."""
    misread = shape in ("texts", "answers") or (learns_from in COMPARED and shape not in COMPARED)
    usual = SHAPES[learns_from].columns if misread else SHAPES[shape].learnt_by
    return _INSTEAD.get((learns_from, shape)) or usual or "Leave out `objective` to learn the answers as they are."


def check_learns_from(sample: Sample, learns_from: LearnsFrom, objective: str) -> None:
    """Refuses a record that an objective doesn't learn from.

    Raises:
        DataError: It is of another shape.
    """
    found = shape_of(sample)
    shape, described = found.kind, "tokens" if isinstance(sample, Tokens) else found.described
    if learns_from in ("pairs", "labelled") and shape in ("answers", "texts"):
        described = "nothing that its answer is compared with"
    if isinstance(sample, ScoredText) and is_pair(sample):
        shape, described = "scored_pairs", SHAPES["scored_pairs"].described
    if learns_from == "prompts" and shape in ("prompts", "answers") and not isinstance(sample, Tokens):
        if isinstance(sample, Completion) and not sample.prompt:
            raise DataError(f"the prompt is empty, and the objective {objective} has it answered", where=sample.where)
        return
    if learns_from == shape or (learns_from in ("answers", "texts") and shape in _AS_TEXTS):
        return
    if (learns_from, shape) in (("labelled", "pairs"), ("scores", "scored_pairs")):  # the first by `AsLabelled`
        return
    raise DataError(
        f"the record has {described}, and the objective {objective} learns from {SHAPES[learns_from].wanted}",
        where=sample.where,
        hint=_way_out(learns_from, shape),
    )
