"""`toolkit preview`: training records as tokens, those that are learnt marked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import click

from graftkit.cli.options import disable_option, host_of, json_option, recipe_arguments
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import Styled, say
from graftkit.corpus.encode import Encoder, Part
from graftkit.errors import DataError
from graftkit.flow.plan import RunPlan
from graftkit.flow.run import plan
from graftkit.flow.tokenizer import make_vocabulary
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.store.token_store import Example

__all__ = ["command"]

_MEASURED = 500
"""How many records the lengths are taken of."""

_BARS = 8
_WIDTH = 40


@click.command("preview")
@recipe_arguments
@click.option(
    "--records", type=click.IntRange(1, 1_000_000_000), default=3, show_default=True, help="How many records to show."
)
@click.option("--where", metavar="FILE:LINE", help="Show this record, by the place that errors name.")
@json_option
@disable_option
def command(
    recipe: str, overrides: tuple[str, ...], records: int, where: str | None, as_json: bool, disable: tuple[str, ...]
) -> None:
    """Show the first training records of a RECIPE as tokens: [learnt] ones in brackets, and green on a terminal.

    After them come the share that is learnt and the lengths of up to 500 records. With --json each record is a line
    with its tokens, ids, weights in the loss, and who wrote which part of its text.
    """
    with output_to_stderr():
        host = host_of(recipe, overrides, disable)
        planned = plan(recipe, overrides=overrides, host=host)
        encoder = make_vocabulary(planned)[0].encoder if planned.vocabulary else planned.encoder
    chosen = list(islice(planned.samples.train, records)) if where is None else [_at(planned, where)]
    for sample in chosen:
        for part, example in _examples(encoder, sample):
            if as_json:
                click.echo(json.dumps(_facts(encoder, part, example)))
            else:
                say([Styled(f"{sample.where}  ({len(example.ids)} tokens)", "bold")])
                say(_tokens(encoder.tokenizer, example), end="\n\n")
    if where is None and not as_json:
        measured = [
            example
            for sample in islice(planned.samples.train, _MEASURED)
            for example in encoder.encode(sample).examples
        ]
        for line in _summary(measured):
            say(line)


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


def _facts(encoder: Encoder, sample: Part, example: Example) -> dict[str, Any]:
    ids = example.ids.tolist()
    return {
        "where": sample.where,
        "tokens": [encoder.tokenizer.token_bytes(id).decode("utf-8", "backslashreplace") for id in ids],
        "ids": ids,
        "loss_weight": [float(weight) for weight in example.loss_weight],
        "prompt_length": int(example.prompt_length),
        "authors": [{"author": author, "text": text} for text, author in encoder.authors(sample)],
    }


def _tokens(tokenizer: Tokenizer, example: Example) -> Iterator[str | Styled]:
    for token, learnt in zip(example.ids.tolist(), example.loss_mask.tolist(), strict=True):
        text = tokenizer.token_bytes(token).decode("utf-8", "backslashreplace").replace("\n", "\\n\n")
        yield Styled(f"[{text}]", "green") if learnt else text


def _summary(examples: Sequence[Example]) -> Iterable[str]:
    """Returns the share that is learnt, and how many examples have which length."""
    if not examples:
        return
    lengths = [len(example.ids) for example in examples]
    learnt = sum(int(example.loss_mask.sum()) for example in examples)
    yield f"{learnt / sum(lengths):.0%} of {sum(lengths):,} tokens in {len(examples):,} examples are learnt; lengths:"
    step = max(1, -(-max(lengths) // _BARS))
    counts = [sum(start < length <= start + step for length in lengths) for start in range(0, max(lengths), step)]
    for number, count in enumerate(counts):
        bar = "#" * round(_WIDTH * count / max(counts))
        yield f"{number * step + 1:>7}-{(number + 1) * step:<7} {count:>6} {bar}".rstrip()
