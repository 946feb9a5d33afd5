"""`toolkit evaluate`: what records say of finished models."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import (
    adapter_options,
    disable_option,
    host_of,
    host_of_run,
    json_option,
    offline_option,
    said_of_records,
)
from graftkit.cli.progress import show_progress
from graftkit.cli.shown_answer import show_answer
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.tables import show_table
from graftkit.cli.terminal import json_line
from graftkit.report.figure_text import number_text, score_text
from graftkit.visible import one_line

if TYPE_CHECKING:
    from graftkit.flow.evaluate import Evaluation
    from graftkit.flow.preparation.plan_adapter import TokenizerOf
    from graftkit.flow.training.answers import Answer

__all__ = ["command"]


@click.command("evaluate")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--data",
    "records",
    metavar="FILE",
    help="The records: a file, a folder or a pattern, or a mapping as a recipe's data.train has it; when left out, "
    "the holdout records of the recipe.",
)
@click.option(
    "--recipe",
    type=click.Path(),
    help="How records are read and what is measured; when left out, as the first run among the sources says.",
)
@click.option(
    "--answers",
    type=click.IntRange(0),
    help="Answer so many of the records, and score the answers; when left out, as many as the recipe says, or none.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, such as evaluation.metrics=json-equal; may be repeated.",
)
@click.option("--wrong", type=click.IntRange(0), default=3, show_default=True, help="How many wrong answers are shown.")
@adapter_options
@disable_option
@offline_option
@json_option
def command(
    sources: tuple[str, ...],
    records: str | None,
    recipe: str | None,
    answers: int | None,
    overrides: tuple[str, ...],
    wrong: int,
    base: str | None,
    quantizer: str | None,
    tokenizer: TokenizerOf | None,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Evaluate finished models on records: the loss, bits per byte, and answers by metrics.

    A SOURCE is a run, an export, an adapter of peft's, a model's folder, a GGUF file or a hub id; several are measured
    alike, one after the other, a row each. Less loss and fewer bits per byte are better; bits per byte compare across
    vocabularies, the loss of a token does not.

    Such as `toolkit evaluate runs/chat ./my-model`, on the run's holdout records, or `toolkit evaluate runs/chat --data
    new.jsonl --answers 20`, on other records, with scored answers.

    A recipe says how records are read and what is measured: --recipe, else that of the first run among the sources, or
    of an export in one. Without a recipe records are read in the format that fits them, and a model is measured by what
    it is: the likelihood of answers, the labels of a classifier, the rewards of pairs, or the tokens behind masks.
    """
    from graftkit.flow.answering.reload import AdapterBase
    from graftkit.flow.evaluate import evaluate

    on = AdapterBase(base, quantizer, tokenizer) if base or quantizer or tokenizer else None
    said = None if records is None else said_of_records(records, "--data")
    changed = [*overrides, *([] if answers is None else [f"evaluation.answers={answers}"])]
    with output_to_stderr(), cancel_on_signals() as cancel, show_progress() as on_event:
        host = host_of_run(sources[0], disable) if recipe is None else host_of(recipe, (), disable)
        found = evaluate(
            sources,
            None if said is None else {"path": said[0], **said[1]},
            recipe=recipe,
            overrides=changed,
            on=on,
            host=host,
            on_event=on_event,
            cancel=cancel,
        )
    if as_json:
        click.echo(json_line({"models": [each.to_json() for each in found]}))
    else:
        _show(found, wrong)


def _show(found: list[Evaluation], wrong: int) -> None:
    """Prints a row a model, and answers that are wrong."""
    columns = _columns(found)
    rows = [[one_line(each.source), *(_cell(each, column) for column in columns)] for each in found]
    show_table(["", *columns], rows)
    counts = [_counts(each) for each in found]
    if len(set(counts)) == 1:
        click.echo(counts[0])
    else:
        for each, text in zip(found, counts, strict=True):
            click.echo(f"{one_line(each.source)}: {text}")
    for where, question, expected, said in islice(_wrong(found), wrong):
        show_answer(where, [("asked", question), ("expected", expected), *said])


def _counts(each: Evaluation) -> str:
    answers = f"; {len(each.answers):,} answers" if each.answers else ""
    return f"{each.records:,} records, {each.tokens:,} tokens, the loss over {each.loss_tokens:,}{answers}"


def _wrong(found: list[Evaluation]) -> Iterator[tuple[str, str, str, list[tuple[str, str]]]]:
    """Yields the questions that some model has answered wrong: where, asked, expected, and what each model said.

    Those that the first model has answered wrong come first.
    """
    asked: dict[tuple[str, str, str], list[tuple[str, Answer]]] = {}
    for each in found:
        for answer in each.answers:
            told = answer.answered
            key = told.record.where, answer.question, told.expected
            asked.setdefault(key, []).append((each.source, answer))
    for key, given in sorted(asked.items(), key=lambda each: each[1][0][1].right):
        if not all(answer.right for _, answer in given):
            yield *key, [(source, answer.answered.answer) for source, answer in given]


_LOSS, _BITS = "loss", "bits per byte"


def _columns(found: list[Evaluation]) -> list[str]:
    names: dict[str, None] = {_LOSS: None}
    for each in found:
        if each.measured.bits_per_byte is not None:
            names[_BITS] = None
        names |= dict.fromkeys(map(one_line, [*each.measured.metrics, *each.measured.scores]))
    return list(names)


def _cell(each: Evaluation, column: str) -> str:
    measured = each.measured
    scores = {one_line(name): value for name, value in measured.scores.items()}
    if column in scores:
        return score_text(scores[column])
    known = {one_line(name): value for name, value in measured.metrics.items()}
    return number_text({**known, _LOSS: measured.holdout_loss, _BITS: measured.bits_per_byte}.get(column))
