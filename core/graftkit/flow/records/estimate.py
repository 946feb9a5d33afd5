"""How many tokens records have, from a sample of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from graftkit.corpus.answers_compared import labelled_in, with_mismatched
from graftkit.corpus.encode import Encoded, Encoder
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.interfaces.samples import (
    LongText,
    Sample,
    ScoredText,
    TaggedText,
    Text,
    TextWithLabels,
    join_pair,
)

__all__ = ["CorpusEstimate", "estimate_corpus"]

_LOOKED_AT = (50, 400)
"""How many records are looked at: the second number where the first ones are short."""

_SHORT = 60_000
"""Tokens that the first records have together at most where more are looked at."""

_MOST_TOKENS = 1_000_000
"""Of long records fewer are looked at: encoding them all takes minutes."""

_MOST_TEXT = 50_000
"""Characters of one text that are encoded; the rest counts as its beginning does."""


@dataclass(frozen=True, slots=True)
class CorpusEstimate:
    """What a sample of the records says of all of them.

    Attributes:
        records: How many there are.
        lengths: The tokens of each example of the sample, in the records' order.
        longest: The tokens of the longest sequence of each: of a pair the longer answer with its prompt.
        scale: How many examples of an epoch each of them stands for.
        sampled: Whether records were left out; where none was, the numbers are exact.
        left_out: What the chat template leaves out of some of the sample.
        trouble: Why a record of the sample can't be encoded; "" where all can.
        learnt: How many of its tokens are in the loss, of each example of the sample.
        prompts: Tokens of its prompt, of each example of the sample.
    """

    records: int
    lengths: Sequence[int]
    longest: Sequence[int]
    scale: float
    sampled: bool
    left_out: Sequence[str] = ()
    trouble: str = ""
    learnt: Sequence[int] = ()
    prompts: Sequence[int] = ()

    @property
    def examples(self) -> int:
        """How many examples an epoch has."""
        return round(len(self.lengths) * self.scale)

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return round(sum(self.lengths) * self.scale)

    @property
    def mean(self) -> float:
        """The mean tokens of an example; 1024 where the sample has none."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else 1024.0

    def quantile(self, share: float) -> int:
        """Returns how many tokens a share of the examples has at most; 1024 where the sample has none."""
        return _quantile(self.lengths, share)

    def longest_quantile(self, share: float) -> int:
        """Returns how many tokens the sequences of a share of the examples have at most; 1024 where there are none."""
        return _quantile(self.longest, share)

    def prompt_quantile(self, share: float) -> int:
        """Returns how many tokens the prompts of a share of the examples have at most, likewise."""
        return _quantile(self.prompts, share)

    def learnt_quantile(self, share: float) -> int:
        """Returns how many tokens a share of the examples has in the loss at most, likewise."""
        return _quantile(self.learnt, share)


def _quantile(lengths: Sequence[int], share: float) -> int:
    return sorted(lengths)[int((len(lengths) - 1) * share)] if lengths else 1024


def estimate_corpus(encoder: Encoder, samples: Samples, seen: float = 1.0) -> CorpusEstimate:
    """Encodes some of the records, evenly spread; which ones depends on their number alone.

    Args:
        encoder: Makes tokens of them.
        samples: The records to learn from.
        seen: How often an epoch sees a record, in the mean of all.
    """
    found = _estimate(encoder, samples, _LOOKED_AT[0])
    if found.sampled and sum(found.lengths) < _SHORT:
        found = _estimate(encoder, samples, _LOOKED_AT[1])
    return replace(found, scale=found.scale * seen)


def _estimate(encoder: Encoder, samples: Samples, wanted: int) -> CorpusEstimate:
    mask = np.zeros_like(samples.kept)
    stride = math.ceil(len(samples) / wanted) or 1
    mask[np.flatnonzero(samples.kept)[::stride]] = True
    lengths: list[int] = []
    longest: list[int] = []
    learnt: list[int] = []
    prompts: list[int] = []
    left_out: set[str] = set()
    looked_at, weight, trouble = 0, 0.0, ""
    for sample in samples.only(mask):
        shortened, scale = _beginning(sample)
        try:
            encoded: Encoded = encoder.encode(shortened)
        except DataError as error:
            trouble = trouble or str(error)
            continue
        looked_at += 1
        weight += scale * len(encoded.examples)
        lengths += [len(example.ids) for example in encoded.examples]
        longest += [max(len(sequence.ids) for sequence in example.sequences) for example in encoded.examples]
        learnt += [int(np.count_nonzero(example.loss_weight)) for example in encoded.examples]
        prompts += [example.prompt_length for example in encoded.examples]
        left_out |= encoded.left_out
        if sum(lengths) > _MOST_TOKENS:
            break
    stands_for = len(samples) / looked_at * weight / len(lengths) if lengths else 1.0
    sampled = looked_at < len(samples) or weight > len(lengths)
    return CorpusEstimate(
        len(samples), lengths, longest, stands_for, sampled, sorted(left_out), trouble, learnt, prompts
    )


def _beginning(sample: Sample) -> tuple[Sample, float]:
    """Returns a record, or the beginning of a long text, and how many times as long the record is.

    The answer of another record that a labelled one is given is taken to be as long as its own.
    """
    if labelled_in(sample):
        return next(with_mismatched(iter([sample]), sample)), 1.0
    if isinstance(sample, LongText):
        with sample.source.open() as file:
            head = file.read(_MOST_TEXT)
            size = len(head)
            while block := file.read(1 << 20):
                size += len(block)
        return Text(head.decode("utf-8-sig", errors="ignore"), sample.where), size / max(1, len(head))
    if isinstance(sample, TextWithLabels | ScoredText) and sample.pair and len(sample.text) > _MOST_TEXT:
        first, second = (text[: _MOST_TEXT // 2] for text in sample.pair)
        short = replace(sample, text=join_pair(first, second), pair=(first, second))
        return short, len(sample.text) / len(short.text)
    if isinstance(sample, TaggedText) and len(sample.text) > _MOST_TEXT:
        count = max(1, sum(end <= _MOST_TEXT for _, end in sample.places))
        text = sample.text[: sample.places[count - 1][1]]
        cut = replace(sample, text=text, places=sample.places[:count], tags=sample.tags[:count])
        return cut, len(sample.text) / len(text)
    if isinstance(sample, Text) and len(sample.text) > _MOST_TEXT:
        return replace(sample, text=sample.text[:_MOST_TEXT]), len(sample.text) / _MOST_TEXT
    return sample, 1.0
