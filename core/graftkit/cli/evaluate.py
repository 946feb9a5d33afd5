"""`toolkit evaluate`: what records say of finished models."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from graftkit.articles import counted
from graftkit.cli.options import (
    adapter_base,
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
from graftkit.interfaces.architecture import OF_WHOLES
from graftkit.report.figure_text import number_text, score_text
from graftkit.visible import one_line

if TYPE_CHECKING:
    from graftkit.flow.evaluate import Evaluation
    from graftkit.flow.preparation.plan_adapter import TokenizerOf
    from graftkit.flow.run_result import Measured
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
    it is: the likelihood of answers, the labels of a classifier, the tags of words, the numbers of a regression, the
    rewards of pairs, or the tokens behind masks.
    """
    from graftkit.flow.evaluate import evaluate

    on = adapter_base(base, quantizer, tokenizer)
    said = None if records is None else said_of_records(records, "--data")
    changed = [*overrides, *([] if answers is None else [f"evaluation.answers={answers}"])]
    with output_to_stderr(), cancel_on_signals() as cancel, show_progress() as on_event:
        host = host_of_run(sources, disable) if recipe is None else host_of(recipe, (), disable)
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
    figures = [_figures(each.measured) for each in found]
    columns = list(dict.fromkeys(name for said in figures for name in said))
    rows = [
        [one_line(each.source), *(said.get(column, "-") for column in columns)]
        for each, said in zip(found, figures, strict=True)
    ]
    show_table(["", *columns], rows)
    counts = [_counts(each) for each in found]
    if len(set(counts)) == 1:
        click.echo(counts[0])
    else:
        for each, text in zip(found, counts, strict=True):
            click.echo(f"{one_line(each.source)}: {text}")
    for question, said in islice(_wrong(found), wrong):
        show_answer(*question, said)


def _counts(each: Evaluation) -> str:
    answers = f"; {counted(len(each.answers), 'answer')}" if each.answers else ""
    seen = f"{counted(each.records, 'record')}, {counted(each.tokens, 'token')}"
    learnt = "" if each.head in OF_WHOLES else f", the loss over {each.loss_tokens:,}"
    return f"{seen}{learnt}{answers}"


def _wrong(found: list[Evaluation]) -> Iterator[tuple[tuple[str, str, str], list[tuple[str, str]]]]:
    """Yields the questions that some model has answered wrong, each with what each model answered.

    A question is its place, what is asked and what is expected. Those that the first model has answered wrong come
    first.
    """
    asked: dict[tuple[str, str, str], list[tuple[str, Answer]]] = {}
    for each in found:
        for answer in each.answers:
            told = answer.answered
            asked.setdefault((told.record.where, answer.question, told.expected), []).append((each.source, answer))
    wrong = [(key, given) for key, given in asked.items() if not all(answer.right for _, answer in given)]
    wrong.sort(key=lambda one: one[1][0][1].right)
    for key, given in wrong:
        yield key, [(source, answer.answered.answer) for source, answer in given]


def _figures(measured: Measured) -> dict[str, str]:
    """Returns the text of each figure by its column's name."""
    found = {"loss": number_text(measured.holdout_loss)}
    if measured.bits_per_byte is not None:
        found["bits per byte"] = number_text(measured.bits_per_byte)
    found |= {one_line(name): number_text(value) for name, value in measured.metrics.items()}
    for name, value in measured.scores.items():  # an objective may measure something of this name, too
        shown = one_line(name)
        found[f"{shown} (answers)" if shown in found else shown] = score_text(value)
    return found
