"""`toolkit compare`: several runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from graftkit.cli.options import json_option
from graftkit.cli.shown_answer import show_answer
from graftkit.cli.tables import show_table
from graftkit.cli.terminal import json_line
from graftkit.errors import RequestError
from graftkit.flow.compare import compare
from graftkit.report.comparison import ComparedAnswer, Comparison
from graftkit.report.comparison_rows import difference_rows, figure_rows
from graftkit.report.series import sparkline
from graftkit.store.files import check_new_file, write_new_text
from graftkit.visible import further_lines_indented, one_line

__all__ = ["command"]

_WIDEST = 40
"""Characters of a value that a table shows."""


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path())
@click.option("--html", "page", type=click.Path(), help="Write a page with the runs' curves, too.")
@click.option("--answers", type=click.IntRange(0), default=3, show_default=True, help="How many answers are shown.")
@json_option
def command(runs: tuple[str, ...], page: str | None, answers: int, as_json: bool) -> None:
    """Compare RUNS: what differs between their recipes, and what came of it."""
    if page is not None:
        _check_page(Path(page))
    found = compare(runs)
    if page is not None:
        from graftkit.report.comparison_page import render_comparison

        write_new_text(Path(page), render_comparison(found))
    if as_json:
        click.echo(json_line(found.to_json()))
        return
    _show(found, answers)
    if page is not None:
        click.echo(f"\npage  {one_line(page)}")


def _check_page(path: Path) -> None:
    """Makes sure before any work that a page may be written there."""
    if path.suffix != ".html":
        raise RequestError("a page's name ends in .html", where=str(path))
    check_new_file(path)


def _show(found: Comparison, answers: int) -> None:
    for notice in found.notices:
        click.echo(further_lines_indented(f"note: {notice}"))
    if found.notices:
        click.echo()
    _table(figure_rows(found) + _curves(found))
    click.echo()
    differences = difference_rows(found)
    if differences:
        _table(differences)
    else:
        click.echo("The recipes, records and versions are the same.")
    for answer in found.answers[:answers]:
        _show_answer(found, answer)


def _table(rows: list[tuple[str, ...]]) -> None:
    cut = [tuple(_middle_cut(cell) for cell in row) for row in rows]
    show_table(cut[0], cut[1:])


def _curves(found: Comparison) -> list[tuple[str, ...]]:
    """Returns the rows with each run's curves, drawn with characters."""
    rows = {
        "training loss": [run.training for run in found.runs],
        "holdout loss": [run.holdout for run in found.runs],
    }
    drawn = {name: [sparkline([y for _, y in curve.points], 20) for curve in curves] for name, curves in rows.items()}
    return [(name, *(line or "-" for line in lines)) for name, lines in drawn.items() if any(lines)]


def _show_answer(found: Comparison, answer: ComparedAnswer) -> None:
    said = [(run.name, "-" if text is None else text) for run, text in zip(found.runs, answer.answers, strict=True)]
    show_answer(answer.where, answer.question, answer.expected, said)


def _middle_cut(text: str) -> str:
    """Returns a value on one line; of a long one the beginning and the end, which is what tells paths apart."""
    shown, half = one_line(text), (_WIDEST - 3) // 2
    return shown if len(shown) <= _WIDEST else f"{shown[:half]}...{shown[-half:]}"
