"""`toolkit generate`: tries a run, an export or a model's folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from graftkit.cli.options import disable_option, host_of_run
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import say_answer

__all__ = ["command"]


@click.command("generate")
@click.argument("source", metavar="RUN_OR_EXPORT")
@click.argument("prompt", required=False)
@click.option("--system", help="The system message; the one that all training records share when left out.")
@click.option("--plain/--chat", "--raw/", default=None, help="Continue the text as it is, or ask in the chat template.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens at most.")
@disable_option
def command(
    source: str,
    prompt: str | None,
    system: str | None,
    plain: bool | None,
    max_new_tokens: int,
    disable: tuple[str, ...],
) -> None:
    """Answer a PROMPT greedily with what a run trained; without one, each line of standard input.

    What was trained on plain prompts is given a plain prompt, unless --chat says otherwise.
    """
    from graftkit.flow.reload import reload

    with output_to_stderr():
        model = reload(source, host_of_run(source, disable))
    if plain is None and model.prompts == "plain" and not system and model.tokenizer.chat_template is not None:
        click.echo("Trained on plain prompts, and so asked without the chat template; --chat asks in it.", err=True)
    for text in [prompt] if prompt is not None else _lines():
        for piece in model.stream(text, system=system, plain=plain, max_new_tokens=max_new_tokens):
            say_answer(piece)
        click.echo()


def _lines() -> Iterable[str]:
    if sys.stdin.isatty():
        click.echo("A prompt a line; Ctrl-D ends.", err=True)
    return (line.rstrip("\n") for line in sys.stdin if line.strip())
