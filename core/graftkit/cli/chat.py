"""A conversation on a terminal: lines are read, answers appear as they come, what was said is kept."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from graftkit.cli.terminal import say, say_answer
from graftkit.errors import GraftkitError
from graftkit.interfaces.samples import Message

if TYPE_CHECKING:
    from graftkit.flow.answering.reloaded_head import Judgement
    from graftkit.flow.answering.reloaded_model import Reply

__all__ = ["converse", "read_prompt"]

_PASTED = 0.05
"""Seconds within which another line that is there already belongs to the same paste."""

_HELP = "Ctrl-C stops an answer, Ctrl-D ends. /reset forgets what was said, /exit ends."


def converse(ask: Callable[[str, Sequence[Message]], Reply | Judgement], *, remembers: bool = True) -> None:
    """Reads prompts and says the answers, until Ctrl-D or /exit.

    Args:
        ask: Returns the answer to a prompt, given what was said before.
        remembers: Whether what was said is part of the next prompt: not where texts are continued as they are.
    """
    click.echo(_HELP if remembers else _HELP.replace("/reset forgets what was said, ", ""), err=True)
    history: list[Message] = []
    while True:
        try:
            prompt = read_prompt()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D ends)", err=True)
            continue
        command = prompt.strip()
        if command in ("/exit", "/quit"):
            return
        if command == "/reset":
            history.clear()
            click.echo("What was said is forgotten.", err=True)
        elif command == "/help":
            click.echo(_HELP, err=True)
        elif command:
            answer = _answered(ask, prompt, history)
            if remembers and answer:
                history += [Message("user", prompt), Message("assistant", answer)]


def _answered(
    ask: Callable[[str, Sequence[Message]], Reply | Judgement], prompt: str, history: Sequence[Message]
) -> str:
    """Says an answer, as far as it comes, and returns it."""
    reply = None
    try:
        try:
            reply = ask(prompt, history)
        except GraftkitError as error:  # such as a conversation that has become too long: the next prompt may do
            click.echo(f"error: {error}", err=True)
            return ""
        for piece in reply:
            say_answer(piece)
    except KeyboardInterrupt:
        if reply is not None:
            reply.close()
        click.echo("\n(stopped)", err=True)
    else:
        say([""])
    return reply.text if reply is not None else ""


def read_prompt() -> str:
    """Reads a prompt from a terminal: one line, or all the lines that were pasted at once.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
    """
    with suppress(ImportError):  # not on Windows
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
    lines = [input("> ")]
    while _more_is_there():
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines)


def _more_is_there() -> bool:
    try:
        return bool(select.select([sys.stdin], [], [], _PASTED)[0])
    except (OSError, ValueError):  # no file that can be waited for, as on Windows
        return False
