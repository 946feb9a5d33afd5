"""`toolkit verify`: proves an export again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graftkit.cli.options import json_option
from graftkit.errors import ExportError, FolderError
from graftkit.flow.export_manifest import EXPORT_MANIFEST, ExportManifest
from graftkit.report.summary import proof_text
from graftkit.store.files import file_facts

__all__ = ["check_files", "command"]


@click.command("verify")
@click.argument("export", type=click.Path())
@json_option
def command(export: str, as_json: bool) -> None:
    """Prove an EXPORT that a run left: every file's hash, then its logits, loaded in a process of its own."""
    folder = Path(export)
    check_files(folder)
    from graftkit.flow.export import prove
    from graftkit.flow.probes import PROBES_FILE

    probes = folder.absolute().parent.parent / PROBES_FILE
    if not probes.is_file():
        raise FolderError(
            f"the run's {PROBES_FILE} is not beside it",
            where=export,
            hint="Verify it inside the run's folder.",
        )
    proof = prove(folder, probes)
    click.echo(json.dumps(proof) if as_json else f"{export}: {proof_text(proof)}")


def check_files(folder: Path) -> None:
    """Compares every file of an export with what its manifest lists.

    Raises:
        FolderError: It is no export, or its manifest is damaged.
        ExportError: A file is missing, new or changed.
    """
    if not (folder / EXPORT_MANIFEST).is_file():
        raise FolderError(f"no export of graftkit's: it has no {EXPORT_MANIFEST}", where=str(folder))
    listed = ExportManifest.read(folder, ("files",)).files
    found = file_facts(folder, leave_out=frozenset({EXPORT_MANIFEST}))
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            state = "missing" if name not in found else "new" if name not in listed else "changed"
            raise ExportError(f"the file {name} is {state} since it was exported", where=str(folder))
