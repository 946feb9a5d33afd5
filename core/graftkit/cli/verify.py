"""`toolkit verify`: proves an export, or all of a run, again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from graftkit.arguments import check_path
from graftkit.cli.options import disable_option, json_option
from graftkit.flow.events import Event, Notice
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST
from graftkit.flow.verify import Verified, verify, verify_run
from graftkit.report.run_manifest import MANIFEST
from graftkit.report.summary import proof_text
from graftkit.visible import further_lines_indented

__all__ = ["command"]


@click.command("verify")
@click.argument("export_or_run", type=click.Path())
@disable_option
@json_option
def command(export_or_run: str, disable: tuple[str, ...], as_json: bool) -> None:
    """Prove an EXPORT that a run left, or all of a RUN: every file's hash, then its logits, loaded in a fresh process.

    Where nothing said yet that it is proved, as with `proof: later`, that is recorded in its manifest and card, and in
    its run's manifest and report; so is that it failed.
    """
    folder = Path(check_path(export_or_run, "export_or_run"))
    if (folder / EXPORT_MANIFEST).is_file() or not (folder / MANIFEST).is_file():
        found = verify(folder, disable=disable, on_event=_report)
        click.echo(json.dumps(found.to_json()) if as_json else _said(export_or_run, found))
        return
    all_found = verify_run(folder, disable=disable, on_event=_report)
    if as_json:
        click.echo(json.dumps({"exports": {name: found.to_json() for name, found in all_found.items()}}))
        return
    for found in all_found.values():
        click.echo(_said(str(found.folder), found))


def _said(export: str, found: Verified) -> str:
    lists = found.hashes_of
    lines = [
        f"{export}: {proof_text(found.proof)}",
        f"{export}: files are those that {' and '.join(lists)} {'list' if len(lists) > 1 else 'lists'}",
    ]
    if len(lists) == 1:
        lines.append("note: whoever changed files may have changed that list: no run's manifest lists them beside it")
    return "\n".join(lines)


def _report(event: Event) -> None:
    if isinstance(event, Notice):
        click.echo(further_lines_indented(f"note: {event.message}"), err=True)
