"""The last stage: `report.html`."""

from __future__ import annotations

import json

from graftkit.flow.context import RunContext
from graftkit.report.html import render_report
from graftkit.store.files import write_text

__all__ = ["write_report"]


def write_report(run: RunContext) -> None:
    """Draws the run."""
    with run.stage("report"):
        steps = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        answers_file = run.folder / "answers-after.json"
        answers = json.loads(answers_file.read_bytes())["answers"] if answers_file.exists() else []
        page = render_report(run.folder.resolve().name, run.manifest, steps, answers)
        write_text(run.folder / "report.html", page)
