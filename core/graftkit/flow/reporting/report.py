"""Writes `report.html`, which is drawn again where a proof comes later."""

from __future__ import annotations

from pathlib import Path

from graftkit.errors import HookError
from graftkit.flow.folders.metrics import METRICS
from graftkit.flow.folders.own_files import REPORT, answers_file
from graftkit.flow.reporting.read_run import read_run
from graftkit.flow.reporting.report_sections import SECTIONS, keep_sections, kept_sections, plain_sections
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.worst_records import WORST_FILE
from graftkit.host.guard import brief
from graftkit.interfaces.report_section import MOST_SECTIONS, ReportSection
from graftkit.report.html import render_report
from graftkit.report.run_manifest import RunManifest
from graftkit.store.files import write_bytes

__all__ = ["REPORT", "draw_report", "drawn_from", "write_report"]

_SHOWN = frozenset(
    {
        METRICS,
        WORST_FILE,
        SECTIONS,
        *map(answers_file, ("before", "after")),
        *(f"tokens/{part}.safetensors" for part in ("train", "holdout")),
    }
)
"""What `read_run` reads besides the manifest, and what plugins added."""


def write_report(run: RunContext) -> None:
    """Draws the run; what could not be read of its own files is told. What plugins add is kept beside it.

    A report that the user has edited stays.
    """
    with run.stage("report") as stage:
        keep_sections(run.folder / SECTIONS, _sections(run))
        for damage in read_run(run.folder, run.manifest).damage:
            stage.notice(damage)
        if run.files.is_theirs(REPORT):
            stage.notice(f"{REPORT} is not as the run wrote it, and stays: no other is drawn")
            return
        drawn = draw_report(run.folder, run.manifest).encode()
        run.manifest_file.announce(REPORT, drawn)
        write_bytes(run.folder / REPORT, drawn)


def draw_report(folder: Path, manifest: RunManifest) -> str:
    """Returns a run's report as its manifest and the files beside it have it.

    Args:
        folder: The run's folder, as the commands in the report name it.
        manifest: What the run says.

    Raises:
        FolderError: The manifest does not say what a finished run's says, or what plugins added is damaged.
    """
    return render_report(read_run(folder, manifest), kept_sections(folder / SECTIONS))


def drawn_from(manifest: RunManifest) -> list[str]:
    """Returns the names of the files that a run's manifest lists and its report shows something of."""
    return [name for name in manifest.artifacts if name in _SHOWN]


def _sections(run: RunContext) -> list[tuple[str, ReportSection]]:
    """Returns the sections that plugins add, each with the name of its plugin.

    Raises:
        HookError: A plugin raised, or returned anything else.
    """
    found: list[tuple[str, ReportSection]] = []
    for record, sections in run.broadcast("graftkit_report_sections"):
        try:
            odd = _odd_about(sections)
            plain = [] if odd else plain_sections(sections)
        except Exception as error:
            odd = f"what can't be drawn: {brief(error)}"
        if odd:
            raise HookError(f"its hook graftkit_report_sections returned {odd}", where=record.label)
        found += [(record.label, section) for section in plain]
    return found


def _odd_about(sections: object) -> str:
    """Returns what is wrong with what a plugin returned, or ""."""
    if not isinstance(sections, list):
        return f"{type(sections).__name__}, not a list"
    if len(sections) > MOST_SECTIONS:
        return f"{len(sections):,} sections, where {MOST_SECTIONS} are most"
    return next((f"a list with {each!r:.60}" for each in sections if not isinstance(each, ReportSection)), "")
