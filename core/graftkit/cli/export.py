"""`toolkit export`: another export of a finished run, or of an adapter from anywhere, without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from graftkit.cli.options import adapter_options, disable_option, host_of_run, json_option, offline_option
from graftkit.cli.progress import show_progress
from graftkit.cli.run import export_lines, naming_as_given, summary
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line

if TYPE_CHECKING:
    from graftkit.flow.preparation.plan_adapter import TokenizerOf

__all__ = ["command"]


@click.command("export")
@click.argument("folder", metavar="RUN_OR_ADAPTER", type=click.Path())
@click.option("--to", "use", required=True, metavar="EXPORT", help="What to write, such as merged, peft or gguf.")
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="A field of the export, as dtype=bfloat16; repeatable."
)
@click.option(
    "--out",
    type=click.Path(),
    help="An adapter's: where to write; runs/NAME of its folder when left out, or runs/NAME-2 if that is taken.",
)
@adapter_options
@click.option("--other-base", is_flag=True, help="Take --base although the adapter was trained on other files.")
@click.option(
    "--proof",
    type=click.Choice(["now", "later"]),
    help="later: toolkit verify is going to prove it; when left out, as the run's recipe says.",
)
@disable_option
@offline_option
@json_option
def command(
    folder: str,
    use: str,
    options: tuple[str, ...],
    out: str | None,
    base: str | None,
    quantizer: str | None,
    tokenizer: TokenizerOf | None,
    other_base: bool,
    proof: Literal["now", "later"] | None,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write and prove another export, such as merged, of a finished run or of an adapter, without training.

    Of a RUN the records and the base model must still be where its recipe says. Exports that are there stay as they
    are; one of the same name is replaced once the new one is proved.

    An ADAPTER is a folder in PEFT's format (adapter_config.json and adapter_model.safetensors), whoever made it. Its
    export is written to OUT/exports/EXPORT, beside those that are there of the same adapter.
    """
    from graftkit.flow.another_export import export

    with output_to_stderr(), naming_as_given(Path(folder)), cancel_on_signals() as cancel, show_progress() as on_event:
        found = export(
            folder,
            use,
            options,
            out=out,
            base=base,
            quantizer=quantizer,
            tokenizer=tokenizer,
            other_base=other_base,
            proof=proof,
            host=host_of_run([folder], disable),
            on_event=on_event,
            cancel=cancel,
        )
    run = found.run and replace(found.run, folder=Path(folder))
    if as_json:
        click.echo(json_line((run or found).to_json()))
    else:
        click.echo(summary(run) if run else "\n".join(export_lines(found.folder, found.proof, found.merge)))
