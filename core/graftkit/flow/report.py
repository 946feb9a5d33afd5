"""The last stage: `report.html`."""

from __future__ import annotations

from graftkit.flow.context import RunContext
from graftkit.flow.read_run import read_run
from graftkit.report.html import render_report
from graftkit.store.files import write_text

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(run: RunContext) -> None:
    """Draws the run; what could not be read of its own files is told."""
    with run.stage("report") as stage:
        found = read_run(run.folder, run.manifest)
        for damage in found.damage:
            stage.notice(damage)
        write_text(run.folder / REPORT, render_report(found))
