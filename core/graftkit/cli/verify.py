"""`toolkit verify`: proves an export again."""

from __future__ import annotations

import json

import click

from graftkit.cli.options import disable_option, json_option
from graftkit.flow.events import Event, Notice
from graftkit.flow.verify import verify
from graftkit.report.summary import proof_text
from graftkit.visible import further_lines_indented

__all__ = ["command"]


@click.command("verify")
@click.argument("export", type=click.Path())
@disable_option
@json_option
def command(export: str, disable: tuple[str, ...], as_json: bool) -> None:
    """Prove an EXPORT that a run left: every file's hash, then its logits, loaded in a process of its own."""
    found = verify(export, disable=disable, on_event=_report)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    lists = found.hashes_of
    click.echo(f"{export}: {proof_text(found.proof)}")
    click.echo(f"{export}: files are those that {' and '.join(lists)} {'list' if len(lists) > 1 else 'lists'}")
    if len(lists) == 1:
        click.echo("note: whoever changed files may have changed that list: no run's manifest lists them beside it")


def _report(event: Event) -> None:
    if isinstance(event, Notice):
        click.echo(further_lines_indented(f"note: {event.message}"), err=True)
