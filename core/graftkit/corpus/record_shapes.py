"""The shapes of records: one table of what each has, is called and is learnt by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.corpus.answers_compared import TwoAnswers
from graftkit.corpus.text_targets import is_pair
from graftkit.errors import DataError
from graftkit.interfaces.objective import LearnsFrom
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
    """

    kind: LearnsFrom
    samples: tuple[type[Any], ...]
    described: str
    wanted: str
    counted: tuple[str, str] | None = None
    objective: str = ""
    measured: str = ""
    several: bool = False

    @property
    def beside(self) -> str:
        """What records have beside their text, in words."""
        return self.described.removeprefix("a text and ")


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
        ),
        RecordShape("texts", (Text, LongText), "a text alone", 'plain texts: {"text": ...}'),
        RecordShape(
            "labels",
            (LabelledText,),
            "a text and a label",
            'texts with labels: {"text": ..., "label": ...}',
            ("text with a label", "texts with a label"),
            "classification",
            "one label of a text",
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
        ),
        RecordShape(
            "scores",
            (ScoredText,),
            "a text and a number",
            'texts with numbers: {"text": ..., "score": 0.5}',
            ("text with a number", "texts with a number"),
            "regression",
            "one number",
        ),
        RecordShape(
            "tags",
            (TaggedText,),
            "a text and tags of its words",
            'words with tags: {"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}',
            ("text with tags", "texts with tags"),
            "token-classification",
            "a tag of each word",
        ),
        RecordShape(
            "scored_pairs",  # of `ScoredText`, those that have two
            (),
            "two texts and a number",
            'pairs of texts with numbers: {"sentence1": ..., "sentence2": ..., "score": 0.5}',
            ("pair of texts with a number", "pairs of texts with a number"),
            "similarity",
        ),
        RecordShape(
            "similar",
            (SimilarTexts,),
            "a text and others that are to be found by it",
            'texts that are found by another: {"query": ..., "positive": ...}, and perhaps {"negative": ...}',
            ("query with its documents", "queries with their documents"),
            "embedding",
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
        hint=_INSTEAD.get((learns_from, shape), "Leave out `objective` to learn the answers as they are."),
    )
