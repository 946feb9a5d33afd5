"""The last stage: `report.html`."""

from __future__ import annotations

from graftkit.errors import HookError
from graftkit.flow.context import RunContext
from graftkit.flow.read_run import read_run
from graftkit.interfaces.report_section import MOST_SECTIONS, ReportSection
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
        write_text(run.folder / REPORT, render_report(found, _sections(run)))


def _sections(run: RunContext) -> list[tuple[str, ReportSection]]:
    """Returns the sections that plugins add, each with the name of its plugin.

    Raises:
        HookError: A plugin raised, or returned anything else.
    """
    found: list[tuple[str, ReportSection]] = []
    for record, sections in run.broadcast("graftkit_report_sections"):
        odd = "" if isinstance(sections, list) else f"{type(sections).__name__}, not a list"
        odd = odd or next((f"a list with {each!r:.60}" for each in sections if not isinstance(each, ReportSection)), "")
        odd = odd or (
            f"{len(sections)} sections, where {MOST_SECTIONS} are most" if len(sections) > MOST_SECTIONS else ""
        )
        if odd:
            raise HookError(f"its hook graftkit_report_sections returned {odd}", where=record.label)
        found += [(record.label, section) for section in sections]
    return found
