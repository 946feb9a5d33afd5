"""Which labels and numbers training sees, and whether it sees wanted and unwanted answers."""

from __future__ import annotations

import math
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from graftkit.corpus.answers_compared import TwoAnswers
from graftkit.corpus.record_shapes import SHAPES, shape_of
from graftkit.corpus.sample_files import Samples
from graftkit.corpus.text_targets import is_pair, labels_in, parts_of
from graftkit.interfaces.objective_config import LearnsFrom
from graftkit.interfaces.samples import LabelledAnswer, LabelledText, Sample, ScoredText, TaggedText, TextWithLabels
from graftkit.visible import first_of, one_line

__all__ = ["SeenKinds"]

_SHOWN = 5

_FAR = 100
"""The size of numbers from which on a head takes long to come to them."""

_Kind = tuple[str, ...] | bool | None
"""What a record is: labels or tags, sorted, each once; whether its answer is wanted; or neither."""


class SeenKinds:
    """Of each record of the training files, in their order, its labels or number, or whether its answer is wanted."""

    def __init__(self) -> None:
        self._names: dict[_Kind, int] = {}
        self._of_record = array("I")
        self._beside: dict[LearnsFrom, str] = {}
        self._lowest, self._highest = math.inf, -math.inf
        self._pairs = 0
        self._two_texts, self._one_text, self._first_alone = 0, 0, ""
        self._tags: dict[str, int] = {}
        self._words = array("I")
        self._learnt = array("q")

    def note(self, sample: Sample) -> None:
        """Notes a record; every one of the files in turn."""
        kind: _Kind = None
        if isinstance(sample, LabelledText | TextWithLabels | TaggedText):
            kind = tuple(sorted({*labels_in(sample)}))
            labels = sample.tags if isinstance(sample, TaggedText) else kind
            self._learnt.extend((hash(parts_of(sample)), hash(labels)))  # equal within this process alone
            if isinstance(sample, TaggedText):
                self._note_words(sample)
        elif isinstance(sample, LabelledAnswer):
            kind = sample.wanted
        elif isinstance(sample, ScoredText):
            self._lowest, self._highest = min(self._lowest, sample.score), max(self._highest, sample.score)
        self._of_record.append(self._names.setdefault(kind, len(self._names)))
        self._pairs += isinstance(sample, TwoAnswers)
        shape = shape_of(sample)
        if shape.measured:
            self._beside.setdefault(shape.kind, sample.where)
            if is_pair(sample):
                self._two_texts += 1
            else:
                self._one_text, self._first_alone = self._one_text + 1, self._first_alone or sample.where

    @property
    def labels(self) -> set[str]:
        """The labels of all records that were noted."""
        return {label for kind in self._names if isinstance(kind, tuple) for label in kind}

    def counts(self, train: Samples, weights: Sequence[Fraction]) -> tuple[dict[str, float], float]:
        """Counts the records that training sees with each label, and all that it sees; exactly, as both are compared.

        Of records whose words have tags it counts the words.

        Args:
            train: The records that training sees, of all that were noted.
            weights: How often each of a file's records counts, by file.
        """
        if self._tags:
            return self._counts_of_words(train, weights)
        found: defaultdict[str, Fraction] = defaultdict(Fraction)
        ends = np.cumsum(train.sizes, dtype=np.int64).tolist()
        for weight, (start, end) in zip(weights, pairwise([0, *ends]), strict=True):
            of_file: Counter[str] = Counter()
            for kind, count in self._seen(train, slice(start, end)).items():
                of_file.update(dict.fromkeys(kind, count) if isinstance(kind, tuple) else {})
            for label, count in of_file.items():
                found[label] += weight * count
        every = sum((weight * count for weight, count in zip(weights, train.counts_by_file(), strict=True)), Fraction())
        return {label: float(count) for label, count in found.items()}, float(every)

    def told_of_one_score(self) -> str:
        """Says which number every record has that was noted; "" where they have several, or none."""
        if self._lowest == self._highest:
            return f"every record has the number {self._lowest:g}"
        if np.float32(self._lowest) != np.float32(self._highest):
            return ""
        return (
            f"the records' numbers, {self._lowest!r} to {self._highest!r}, are all the same in single precision, in "
            "which they are learnt"
        )

    def told_of_scores(self) -> list[str]:
        """Tells of numbers that a head, whose output begins near 0, takes long to come to."""
        if max(abs(self._lowest), abs(self._highest)) <= _FAR:
            return []
        return [
            f"the records' numbers lie between {self._lowest:g} and {self._highest:g}, far from 0, where the head "
            "begins: bring them to a range of about 1, or training takes long to come near them"
        ]

    def told_of_pairs(self) -> list[str]:
        """Tells of pairs that are learnt as labelled answers."""
        told = f"{self._pairs:,} records are pairs: each is learnt as two answers, the chosen one wanted, the other not"
        return [told] if self._pairs else []

    def told_of_texts(self, learns_from: LearnsFrom, objective: str) -> list[str]:
        """Tells of labels or numbers beside texts that are learnt as texts alone.

        Args:
            learns_from: What is learnt: of `answers` a single label is one.
            objective: What they are learnt by.
        """
        return [
            f"{where}: the record has {SHAPES[kind].beside} beside its text, which the objective {objective} does "
            f"not learn: {SHAPES[kind].objective} does"
            for kind, where in self._beside.items()
            if not (kind == "labels" and learns_from == "answers")
        ]

    def told_of_lone_texts(self) -> list[str]:
        """Tells of texts that stand alone among pairs, as where the second one is null."""
        if not self._two_texts or not self._one_text:
            return []
        return [
            f"{self._first_alone}: the record has one text, and others have two: {self._one_text:,} of "
            f"{self._one_text + self._two_texts:,} records are learnt as a text alone"
        ]

    def told_of_other_labels(self, train: Samples) -> list[str]:
        """Tells of texts that several records have, each with another label, or with other ones.

        Args:
            train: The records that training sees, of all that were noted.
        """
        text, labels = np.frombuffer(self._learnt, np.int64).reshape(-1, 2).T
        order = np.lexsort((labels, text))
        text, labels = text[order], labels[order]
        texts = np.unique(text[1:][(text[1:] == text[:-1]) & (labels[1:] != labels[:-1])])
        if not len(texts) or len(order) != len(self._of_record):
            return []
        first = order[np.isin(text, texts)].min()
        of_first = order == first
        other = order[(text == text[of_first]) & (labels != labels[of_first])].min()
        wanted = np.zeros(len(train.kept), bool)
        wanted[[first, other]] = True
        places = [sample.where for sample in train.read(wanted)]
        what = "tags" if self._tags else "labels"
        have = "1 text has" if len(texts) == 1 else f"{len(texts):,} texts have"
        return [
            f"{have} other {what} in one record than in another, such as {' and '.join(places)}: not both are learnt"
        ]

    def _note_words(self, sample: TaggedText) -> None:
        """Notes how many words of a record have each tag."""
        for tag, count in Counter(sample.tags).items():
            self._words.extend((len(self._of_record), self._tags.setdefault(tag, len(self._tags)), count))

    def _counts_of_words(self, train: Samples, weights: Sequence[Fraction]) -> tuple[dict[str, float], float]:
        record, tag, count = np.frombuffer(self._words, np.uintc).reshape(-1, 3).T.astype(np.int64)
        found, start = [Fraction()] * len(self._tags), 0
        for weight, size in zip(weights, train.sizes, strict=True):
            seen = (start <= record) & (record < start + size) & train.kept[record]
            words = np.zeros(len(found), np.int64)
            np.add.at(words, tag[seen], count[seen])
            found = [so_far + weight * number for so_far, number in zip(found, words.tolist(), strict=True)]
            start += size
        return {name: float(number) for name, number in zip(self._tags, found, strict=True) if number}, float(
            sum(found)
        )

    def _seen(self, train: Samples, part: slice = slice(None)) -> dict[_Kind, int]:
        """Returns each kind of which training sees a record in a part of all that were noted, and how many."""
        numbers = np.frombuffer(self._of_record, np.uintc)[part][train.kept[part]]
        counts = np.bincount(numbers, minlength=len(self._names))
        return {kind: count for kind, count in zip(self._names, counts.tolist(), strict=True) if count}

    def told(self, train: Samples, labels: Sequence[str]) -> list[str]:
        """Tells what nothing is learnt of, and which labels are probably meant to be one.

        Args:
            train: The records that training sees, of all that were noted.
            labels: The labels that a classifier tells apart; none for other objectives.
        """
        kinds = {*self._seen(train)}
        seen = {label for kind in kinds if isinstance(kind, tuple) for label in kind}
        always = [label for label in labels if all(isinstance(kind, tuple) and label in kind for kind in kinds)]
        every = "every training record has the label"
        if "tags" in self._beside:  # one tag of a record's words teaches, unless all other words have it, too
            every, always = "every word of training records has the tag", always if len(seen) == 1 else []
        idle = [
            *_idle("no training record has the label", [label for label in labels if label not in seen]),
            *_idle(every, always),
            *_alike(labels),
        ]
        if kinds in ({True}, {False}):
            kind = "wanted" if True in kinds else "unwanted"
            return [f"the answer of every training record is {kind}: there is none of the other kind to learn from"]
        return idle


def _idle(what: str, labels: Sequence[str]) -> list[str]:
    """Tells of labels that all training records have, or none of them."""
    if not labels:
        return []
    return [f"{what} {first_of((repr(one_line(label, 40)) for label in labels), _SHOWN)}: nothing is learnt of it"]


def _alike(labels: Sequence[str]) -> list[str]:
    """Tells of labels that differ by case, white space or the form of their characters alone."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(label)
    found = [group for group in groups.values() if len(group) > 1]
    if not found:
        return []
    shown = "; ".join(", ".join(repr(one_line(label, 40)) for label in group[:_SHOWN]) for group in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return [f"labels that differ by case or white space alone are told apart: {shown}{more}"]
