"""Shows an answer: where its record stands, what was asked and expected, and who said what."""

from __future__ import annotations

from collections.abc import Sequence

import click

from graftkit.visible import one_line

__all__ = ["show_answer"]

_LONGEST = 120
"""Characters of a question or an answer that are shown."""


def show_answer(where: str, question: str, expected: str, answers: Sequence[tuple[str, str]]) -> None:
    """Prints a line each: what was asked, what was expected, and who answered what.

    Args:
        where: The record's file and line.
        question: What was asked.
        expected: The record's own answer; "" where it has none.
        answers: Who answered, and what.
    """
    said = [("asked", question), *([("expected", expected)] if expected else []), *answers]
    width = max(len(name) for name, _ in said)
    click.echo(f"\n{one_line(where)}")
    for name, text in said:
        click.echo(f"  {one_line(name):{width}}  {one_line(text.strip(), _LONGEST)}")
