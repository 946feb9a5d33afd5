"""Training records as tokens: which are learnt, and who wrote what."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np

from graftkit.arguments import check_number, check_text
from graftkit.corpus.encode import Encoder
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Position, encoded_parts, tokenize
from graftkit.errors import DataError
from graftkit.flow.plan_of_run import plan
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.preparation.tokenizer import make_vocabulary
from graftkit.flow.records.handed_records import Rows
from graftkit.flow.records.told_of_encoding import told_of_encoding
from graftkit.host.host import PluginHost
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.load import RecipeSource
from graftkit.store.token_store import TARGET, Example

__all__ = ["Lengths", "Preview", "PreviewedExample", "preview"]

_SHOWN = 1 << 17
"""Tokens of a record after which none of its further examples is shown: nobody reads more."""


@dataclass(frozen=True, slots=True)
class PreviewedExample:
    """An example of a record, as training sees it.

    Attributes:
        where: The record's file and line.
        tokens: The text of each token; bytes that are no text are written out.
        ids: Their ids.
        loss_weight: How much each counts in the loss; 0 where it is not learnt.
        prompt_length: How many tokens come before the answer.
        authors: The record's texts as the template laid them out, each with who wrote it; of a text of over 4 MB its
            beginning.
        tags: Of words with tags the tag that is learnt of each token; "" where none is. None of other records.
    """

    where: str
    tokens: Sequence[str]
    ids: Sequence[int]
    loss_weight: Sequence[float]
    prompt_length: int
    authors: Sequence[dict[str, str]]
    tags: Sequence[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the first records come to.

    Attributes:
        lengths: How many tokens each of their examples has.
        learnt: How many tokens of all of them are learnt.
    """

    lengths: Sequence[int]
    learnt: int


@dataclass(frozen=True, slots=True)
class Preview:
    """Training records as tokens.

    Attributes:
        examples: The examples of the records that were asked for, in order; of each record as many as come to 131,072
            tokens, and at least one.
        lengths: What the first records come to, as many as were asked for.
        not_shown: Where a record has further examples: its place -> how many.
        sampled: Whether none of it is learnt: the model's own answers are, and the records' are what these are compared
            with.
        notices: What the user should know of the recipe, as `plan` tells it, and of how the first records are encoded.
    """

    examples: Sequence[PreviewedExample]
    lengths: Lengths
    not_shown: Mapping[str, int] = field(default_factory=dict)
    sampled: bool = False
    notices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)


def preview(
    recipe: RecipeSource,
    *,
    records: int = 3,
    where: str | None = None,
    measured: int = 500,
    overrides: Sequence[str] = (),
    host: PluginHost | None = None,
    train: Rows | None = None,
    holdout: Rows | None = None,
    offline: bool = False,
) -> Preview:
    """Encodes the first training records of a recipe as a run does. No weight is loaded.

    Args:
        recipe: As for `run`.
        records: How many.
        where: The one record to encode instead, of training or holdout: "FILE:LINE", or "FILE#ROW" of a table, as
            errors name it; the folders before the file's name may be left out. Then no lengths are measured.
        measured: Of how many records the lengths are measured.
        overrides: As for `run`.
        host: As for `run`.
        train: As for `run`.
        holdout: As for `run`.
        offline: As for `run`.

    Raises:
        RequestError: Something in the recipe is wrong, or there is no such record.
    """
    check_number(records, "records", 0, sys.maxsize)
    check_number(measured, "measured", 0, sys.maxsize)
    if where is not None:
        check_text(where, "where")
    planned = plan(recipe, overrides=overrides, host=host, train=train, holdout=holdout, offline=offline)
    encoder = make_vocabulary(planned)[0].encoder if planned.vocabulary else planned.encoder
    looked = _Looked(encoder)
    for sample in [_at(planned, where)] if where is not None else islice(planned.samples.train, records):
        looked.look(sample)
    lengths, told = _measured(planned, encoder, 0 if where is not None else measured)
    sampled = isinstance(planned.bound.objective_config, SampledConfig)
    return Preview(looked.shown, lengths, looked.not_shown, sampled, [*planned.notices, *told])


def _measured(planned: RunPlan, encoder: Encoder, most: int) -> tuple[Lengths, list[str]]:
    """Encodes the first training records as a run does.

    Returns:
        What they come to, and what the user should know of what was cut or left out.
    """
    train, lengths, learnt, tally = planned.samples.train, list[int](), 0, Tally()
    for chunk in tokenize(encoder, train.at(range(min(most, len(train)))), Position()) if most else ():
        lengths += chunk.tokens.lengths.tolist()
        learnt += int(np.count_nonzero(chunk.tokens.loss_weight))
        tally = tally.plus(chunk.tally, 0)
    side = "records" if tally.records == len(train) else "measured records"
    return Lengths(lengths, learnt), list(told_of_encoding(tally, side, encoder, planned.bound.objective_config))


class _Looked:
    """What is shown of records that are looked at one after the other, of which none is held.

    Attributes:
        shown: The examples that are shown.
        not_shown: A record's place -> how many further examples it has.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.shown: list[PreviewedExample] = []
        self.not_shown: dict[str, int] = {}

    def look(self, sample: Sample) -> None:
        """Encodes a record."""
        tokens = further = 0
        for part in self._encoder.turns(sample):
            authors: list[dict[str, str]] = []
            for example in chain.from_iterable(encoded_parts(self._encoder, part)):
                tokens += len(example.ids)
                if tokens <= _SHOWN or tokens == len(example.ids):
                    authors = authors or [{"author": who, "text": text} for text, who in self._encoder.authors(part)]
                    self.shown.append(_previewed(self._encoder, part.where, example, authors))
                else:
                    further += 1
        if further:
            self.not_shown[sample.where] = further


def _at(planned: RunPlan, where: str) -> Sample:
    """Returns the record at a place, of training or holdout; the folders before the file's name may be left out."""
    sides = (planned.samples.train, planned.samples.holdout)
    for sample in chain.from_iterable(sides):
        if sample.where == where or sample.where.endswith(f"/{where}"):
            return sample
    raise DataError("there is no such record", where=where, hint="A place is FILE:LINE, or FILE#ROW of a table.")


def _previewed(encoder: Encoder, where: str, example: Example, authors: Sequence[dict[str, str]]) -> PreviewedExample:
    ids, weights = example.ids.tolist(), example.loss_weight.tolist()
    tokens = [_text(encoder.tokenizer, id) for id in ids]
    tags = None
    if encoder.rules.targets and TARGET in example.by_token:
        numbers = zip(example.by_token[TARGET].tolist(), weights, strict=True)
        tags = [encoder.rules.targets.labels[number] if weight else "" for number, weight in numbers]
    return PreviewedExample(where, tokens, ids, weights, int(example.prompt_length), authors, tags)


def _text(tokenizer: Tokenizer, id: int) -> str:
    return tokenizer.token_bytes(id).decode("utf-8", "backslashreplace")
