"""`toolkit verify`: proves an export again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from graftkit.cli.options import disable_option, json_option
from graftkit.errors import ExportError, FolderError
from graftkit.flow.export_manifest import (
    EXPORT_MANIFEST,
    ExportManifest,
    check_listed,
    listed_by_the_run,
    refuse_bad_files,
    refuse_foreign_code,
)
from graftkit.report.run_manifest import MANIFEST, run_around
from graftkit.report.summary import proof_text
from graftkit.store.files import file_facts
from graftkit.visible import further_lines_indented

__all__ = ["check_files", "command"]


@click.command("verify")
@click.argument("export", type=click.Path())
@disable_option
@json_option
def command(export: str, disable: tuple[str, ...], as_json: bool) -> None:
    """Prove an EXPORT that a run left: every file's hash, then its logits, loaded in a process of its own."""
    folder = Path(export)
    listed_in = check_files(folder)
    from graftkit.flow.export import prove
    from graftkit.flow.probes import PROBES_FILE

    probes = folder.absolute().parent.parent / PROBES_FILE
    if not probes.is_file():
        raise FolderError(
            f"the run's {PROBES_FILE} is not beside it",
            where=export,
            hint="Verify it inside the run's folder.",
        )
    run = run_around(folder)
    if run is not None:  # with other probes the proof would be of something else
        own = {name: facts for name, facts in run.artifacts.items() if name.startswith(probes.stem)}
        check_listed(probes.parent, own)
    left_out = run.left_out if run else []
    for name in left_out:
        _report(f"{name} is left out, as the run's recipe says")
    proof = prove(folder, probes, disable=[*disable, *left_out], report=_report) | {"hashes_of": listed_in}
    if proof["status"] != "proved":
        raise ExportError(
            f"it could not be proved: {proof['reason']}",
            where=export,
            hint="Its files are those that were written; nothing says that they compute what was trained.",
        )
    told = ExportManifest.read(folder, ()).unproved
    if told:
        _report(f"when it was written, {told}. That it is proved now is kept by `--resume` or another `toolkit export`")
    if as_json:
        click.echo(json.dumps(proof))
        return
    click.echo(f"{export}: {proof_text(proof)}")
    click.echo(f"{export}: files are those that {' and '.join(listed_in)} {'list' if len(listed_in) > 1 else 'lists'}")
    if len(listed_in) == 1:
        click.echo("note: whoever changed files may have changed that list: no run's manifest lists them beside it")


def _report(notice: str) -> None:
    click.echo(further_lines_indented(f"note: {notice}"), err=True)


def check_files(folder: Path) -> list[str]:
    """Compares every file with the lists of hashes that there are, and returns the lists' names.

    An export's own list is as trustworthy as the export. The run's manifest, two folders above, is another witness.

    Raises:
        FolderError: It is no export, or a manifest is damaged.
        ExportError: A file is missing, new or changed.
    """
    if not (folder / EXPORT_MANIFEST).is_file():
        raise FolderError(f"no export of graftkit's: it has no {EXPORT_MANIFEST}", where=str(folder))
    refuse_foreign_code(folder)
    refuse_bad_files(folder)
    try:
        found = file_facts(folder)
    except OSError as error:  # a device, a page of memory, a disk that fails
        raise ExportError(f"a file can't be read: {error.strerror}", where=error.filename or str(folder)) from error
    own = ExportManifest.read(folder, ("files",)).files
    _compare(folder, {**own, EXPORT_MANIFEST: found[EXPORT_MANIFEST]}, found, EXPORT_MANIFEST)
    of_the_run = listed_by_the_run(folder)
    if not of_the_run:
        return [EXPORT_MANIFEST]
    _compare(folder, of_the_run, found, f"the run's {MANIFEST}")
    return [EXPORT_MANIFEST, f"the run's {MANIFEST}"]


def _compare(folder: Path, listed: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            state = "missing" if name not in found else "new" if name not in listed else "changed"
            raise ExportError(f"the file {name} is {state} since it was exported, says {where}", where=str(folder))
