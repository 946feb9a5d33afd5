"""`toolkit generate`: tries a run, an export or a model's folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from graftkit.cli.options import disable_option, host_of_run
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import say_answer
from graftkit.errors import RequestError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular

__all__ = ["command"]

_MOST_BYTES = 16 << 20


@click.command("generate")
@click.argument("source", metavar="RUN_OR_EXPORT")
@click.argument("prompt", required=False)
@click.option("--system", help="The system message; the one that all training records share when left out.")
@click.option(
    "--tools",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file with a list of the functions that may be called; those that all training records share when left "
    "out.",
)
@click.option("--plain/--chat", "--raw/", default=None, help="Continue the text as it is, or ask in the chat template.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens at most.")
@disable_option
def command(
    source: str,
    prompt: str | None,
    system: str | None,
    tools: Path | None,
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
    offered = None if tools is None else _read_tools(tools)
    for text in [prompt] if prompt is not None else _lines():
        for piece in model.stream(text, system=system, tools=offered, plain=plain, max_new_tokens=max_new_tokens):
            say_answer(piece)
        click.echo()


def _read_tools(path: Path) -> list[dict[str, Any]]:
    """Reads descriptions of functions, as chat templates take them.

    Raises:
        RequestError: They can't be read, or are no list of JSON objects.
    """
    try:
        tools = parse_json(read_regular(path, _MOST_BYTES), unicode=True)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"the tools can't be read: {error}", where=str(path)) from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RequestError("tools are a JSON list of objects", where=str(path))
    return tools


def _lines() -> Iterable[str]:
    if sys.stdin.isatty():
        click.echo("A prompt a line; Ctrl-D ends.", err=True)
    return (line.rstrip("\n") for line in sys.stdin if line.strip())
