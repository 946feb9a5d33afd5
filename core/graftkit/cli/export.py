"""`toolkit export`: another export of a finished run, without training."""

from __future__ import annotations

from pathlib import Path

import click

from graftkit.cli.options import disable_option, host_of_run, json_option
from graftkit.cli.progress import show_progress
from graftkit.cli.run import summary
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line

__all__ = ["command"]


@click.command("export")
@click.argument("folder", metavar="RUN", type=click.Path())
@click.argument("name", metavar="EXPORT")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="A field of the export, as dtype=bfloat16."
)
@disable_option
@json_option
def command(folder: str, name: str, options: tuple[str, ...], disable: tuple[str, ...], as_json: bool) -> None:
    """Write and prove another EXPORT of a finished RUN, such as merged, without training.

    The run's records and base model must still be where its recipe says. Exports that are there stay as they are; one
    of the same name is replaced once the new one is proved.
    """
    from graftkit.flow.add_export import add_export

    with output_to_stderr(), cancel_on_signals() as cancel, show_progress() as on_event:
        host = host_of_run(folder, disable)
        result = add_export(Path(folder), name, options, host=host, on_event=on_event, cancel=cancel)
    click.echo(json_line({"folder": str(result.folder), **result.manifest}) if as_json else summary(result))
