"""`toolkit init`: a recipe to start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from graftkit.cli.options import disable_option, open_host, said_of_records
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import say
from graftkit.errors import DataError, RecipeError
from graftkit.visible import one_line

__all__ = ["command"]


@click.command("init")
@click.argument("path", type=click.Path(dir_okay=False), default="recipe.yaml")
@click.option("--model", default="./model", show_default=True, help="The base model.")
@click.option(
    "--train",
    default="train.jsonl",
    show_default=True,
    help="The records: a file, a folder or a pattern; or a mapping as the recipe has it, "
    "'{path: FILE, columns: {question: THEIRS, answer: THEIRS}}'.",
)
@click.option(
    "--from",
    "other",
    type=click.Path(dir_okay=False),
    help="Convert this file of Axolotl, LLaMA-Factory, TRL, mlx-lm or ms-swift instead.",
)
@click.option("--objective", help="What to learn, where that is not what suits the records best: grpo, orpo, sft, ...")
@disable_option
@click.pass_context
def command(
    context: click.Context,
    path: str,
    model: str,
    train: str,
    other: str | None,
    objective: str | None,
    disable: tuple[str, ...],
) -> None:
    """Write a recipe to start from to PATH (recipe.yaml).

    Where the records and the model are there, they are looked at: the recipe then names the records' format and the
    columns that are not read, and has lengths, steps and a learning rate that fit them. Where no format fits, but the
    columns' names say which is the question and which the answer, it names those, and says that they are guessed.
    Records that --train names and that can't be used are refused.

    With --objective it is learnt what that says, where the records are such as it learns from: with grpo answers that
    the model samples, rewarded by a metric to begin with.

    With --from the recipe says what another program's file does. Keys that mean something else are told, and so are
    those that are not converted, each with the reason.
    """
    from graftkit.flow.converted_recipe import write_converted_recipe
    from graftkit.flow.first_recipe import FirstRecipe, write_first_recipe

    if other is not None:
        if named := next((name for name in ("model", "train", "objective") if _is_said(context, name)), None):
            raise click.UsageError(f"--{named} is what the file of --from says; change it in the recipe")
        with output_to_stderr():
            written = FirstRecipe(write_converted_recipe(Path(other), path, open_host(disable)))
    else:
        records, said = said_of_records(train, "--train")
        named_records = _is_said(context, "train")
        with output_to_stderr(), _hints_of_options():
            host = open_host(disable)
            written = write_first_recipe(
                path, model, records, host, said=said, objective=objective, named_records=named_records
            )
    say(f"wrote {one_line(path)}")
    if written.template:
        say(f"wrote {one_line(str(written.template))}: {written.why_template}")
    for line in written.told:
        say(line)


def _is_said(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


@contextmanager
def _hints_of_options() -> Iterator[None]:
    """Says in errors' hints by which option the command is told what they say of a recipe."""
    try:
        yield
    except (DataError, RecipeError) as error:
        if error.hint and "{path:" in error.hint:
            error.hint += " --train takes such a mapping, too, in single quotes."
        if error.hint and "objective: " in error.hint and "--objective" not in error.hint:
            error.hint += " --objective says that here."
        if error.hint:
            error.hint = error.hint.replace("Leave out `objective`", "Leave out --objective")
        raise
