"""Turns a comparison into one HTML page."""

from __future__ import annotations

from graftkit.report.chart import Line, line_chart
from graftkit.report.comparison import Comparison, RunFigures
from graftkit.report.comparison_rows import difference_rows, figure_rows
from graftkit.report.page import render
from graftkit.report.series import Curve, smoothed

__all__ = ["render_comparison"]

SHOWN_ANSWERS = 20


def render_comparison(found: Comparison) -> str:
    """Renders the page, with the curves of all runs over one another."""
    names = " and ".join(run.name for run in found.runs)
    training = [_line(run, number, holdout=False) for number, run in enumerate(found.runs)]
    holdout = [_line(run, number, holdout=True) for number, run in enumerate(found.runs)]
    return render(
        "comparison.html",
        title=f"{names} compared" if len(names) < 80 else f"{len(found.runs)} runs compared",
        notices=found.notices,
        figures=figure_rows(found),
        differences=difference_rows(found),
        training=_chart(training, "training loss", "The training loss of each run"),
        holdout=_chart(holdout, "holdout loss", "The holdout loss of each run") if found.same_loss else "",
        names=[run.name for run in found.runs],
        folders=[run.folder for run in found.runs],
        answers=found.answers[:SHOWN_ANSWERS],
        answered=len(found.answers),
    )


def _line(run: RunFigures, number: int, *, holdout: bool) -> Line:
    points = run.holdout.points if holdout else smoothed(run.training.points)
    return Line(Curve(run.name, points), number, marked=holdout)


def _chart(lines: list[Line], label: str, described: str) -> str:
    return line_chart(lines, "tokens trained on", label, described=described)
