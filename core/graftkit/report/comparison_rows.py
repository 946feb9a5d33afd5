"""A comparison in words, for the terminal and the page alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from graftkit.report.comparison import Comparison, RunFigures
from graftkit.report.figure_text import number_text, score_text

__all__ = ["difference_rows", "figure_rows"]

_HASH = re.compile("[0-9a-f]{64}")

Cell = Callable[[RunFigures], str]


def difference_rows(found: Comparison) -> list[tuple[str, ...]]:
    """Returns the headings, and each key whose value is not the same in all runs; nothing where all are."""
    rows = [(each.key, *map(_value, each.values)) for each in found.differences]
    return [("", *(run.name for run in found.runs)), *rows] if rows else []


def figure_rows(found: Comparison) -> list[tuple[str, ...]]:
    """Returns the headings, and what came of each run; a figure that none has is left out."""
    cells: dict[str, Cell] = {
        "status": lambda run: run.status,
        "holdout loss before": lambda run: number_text(run.holdout_before),
        "holdout loss after": lambda run: number_text(run.holdout_after),
        "bits per byte before": lambda run: number_text(run.bits_before),
        "bits per byte after": lambda run: number_text(run.bits_after),
    }
    for name in dict.fromkeys(name for run in found.runs for name in (*run.metrics_before, *run.metrics_after)):
        cells |= {f"{name} before": _metric("metrics_before", name), f"{name} after": _metric("metrics_after", name)}
    for label in dict.fromkeys(label for run in found.runs for label in run.scores):
        cells[f"{label.replace('-', ' ')} after (answers)"] = _score(label)  # a loss may have a measure of this name
    cells |= {
        "steps": lambda run: f"{run.steps:,}",
        "tokens": lambda run: f"{run.tokens:,}",
        "seconds of training": lambda run: f"{run.seconds:,.1f}",
        "tokens/s": lambda run: "-" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}",
        "trained parameters": lambda run: "-" if run.trainable is None else f"{run.trainable:,}",
        "peak memory, MB": lambda run: "-" if run.peak_memory is None else f"{run.peak_memory / 1e6:,.0f}",
    }
    for name in dict.fromkeys(name for run in found.runs for name in run.exports):
        cells[f"export {name}"] = _export(name)
    rows = [(name, *map(cell, found.runs)) for name, cell in cells.items()]
    return [("", *(run.name for run in found.runs)), *(row for row in rows if set(row[1:]) != {"-"})]


def _score(label: str) -> Cell:
    return lambda run: score_text(run.scores.get(label))


def _metric(when: str, name: str) -> Cell:
    return lambda run: number_text(getattr(run, when).get(name))


def _export(name: str) -> Cell:
    return lambda run: run.exports.get(name, "-").partition(":")[0]


def _value(value: Any) -> str:
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:12]
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
