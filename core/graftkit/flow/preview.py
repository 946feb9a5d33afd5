"""Training records as tokens: which are learnt, and who wrote what."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

from graftkit.arguments import check_number, check_text
from graftkit.corpus.encode import Encoder, Part
from graftkit.errors import DataError
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.preparation.tokenizer import make_vocabulary
from graftkit.flow.records.handed_records import Rows
from graftkit.flow.run import plan
from graftkit.host.host import PluginHost
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.load import RecipeSource
from graftkit.store.token_store import Example

__all__ = ["Lengths", "Preview", "PreviewedExample", "preview"]


@dataclass(frozen=True, slots=True)
class PreviewedExample:
    """An example of a record, as training sees it.

    Attributes:
        where: The record's file and line.
        tokens: The text of each token; bytes that are no text are written out.
        ids: Their ids.
        loss_weight: How much each counts in the loss; 0 where it is not learnt.
        prompt_length: How many tokens come before the answer.
        authors: The record's texts as the template laid them out, each with who wrote it.
    """

    where: str
    tokens: Sequence[str]
    ids: Sequence[int]
    loss_weight: Sequence[float]
    prompt_length: int
    authors: Sequence[dict[str, str]]

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
        examples: The examples of the records that were asked for, in order.
        lengths: What the first records come to, as many as were asked for.
    """

    examples: Sequence[PreviewedExample]
    lengths: Lengths

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
    chosen = list(islice(planned.samples.train, records)) if where is None else [_at(planned, where)]
    first = islice(planned.samples.train, measured if where is None else 0)
    examples = [example for sample in first for example in encoder.encode(sample).examples]
    learnt = sum(int(example.loss_mask.sum()) for example in examples)
    return Preview(
        [_previewed(encoder, part, example) for sample in chosen for part, example in _examples(encoder, sample)],
        Lengths([len(example.ids) for example in examples], learnt),
    )


def _examples(encoder: Encoder, sample: Sample) -> Iterator[tuple[Part, Example]]:
    """Yields the examples of a record, each with the part of the record that it is of."""
    for part in encoder.turns(sample):
        for example in encoder.encode(part).examples:
            yield part, example


def _at(planned: RunPlan, where: str) -> Sample:
    """Returns the record at a place, of training or holdout; the folders before the file's name may be left out."""
    sides = (planned.samples.train, planned.samples.holdout)
    for sample in chain.from_iterable(sides):
        if sample.where == where or sample.where.endswith(f"/{where}"):
            return sample
    raise DataError("there is no such record", where=where, hint="A place is FILE:LINE, or FILE#ROW of a table.")


def _previewed(encoder: Encoder, part: Part, example: Example) -> PreviewedExample:
    ids = example.ids.tolist()
    return PreviewedExample(
        part.where,
        [_text(encoder.tokenizer, id) for id in ids],
        ids,
        [float(weight) for weight in example.loss_weight],
        int(example.prompt_length),
        [{"author": author, "text": text} for text, author in encoder.authors(part)],
    )


def _text(tokenizer: Tokenizer, id: int) -> str:
    return tokenizer.token_bytes(id).decode("utf-8", "backslashreplace")
