"""The last stage: `report.html`."""

from __future__ import annotations

import json

from graftkit.flow.context import RunContext
from graftkit.flow.metrics import METRICS, missing_steps, read_metrics
from graftkit.report.html import render_report
from graftkit.store.files import write_text

__all__ = ["write_report"]


def write_report(run: RunContext) -> None:
    """Draws the run."""
    with run.stage("report") as stage:
        metrics = read_metrics(run.folder / METRICS)
        training = next(stage for stage in run.manifest.stages if stage.name == "training")
        damage = missing_steps(metrics.steps, (training.model_extra or {})["steps"])
        if damage:
            stage.notice(damage)
        answers_file = run.folder / "answers-after.json"
        answers = json.loads(answers_file.read_bytes())["answers"] if answers_file.exists() else []
        page = render_report(run.folder.resolve().name, run.manifest, metrics.steps, answers, metrics.holdout_losses)
        write_text(run.folder / "report.html", page)
