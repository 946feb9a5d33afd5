"""`toolkit export`: another export of a finished run, or of an adapter from anywhere, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import adapter_options, disable_option, host_of_run, json_option
from graftkit.cli.progress import show_progress
from graftkit.cli.run import export_lines, summary
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import json_line
from graftkit.errors import RequestError

if TYPE_CHECKING:
    from graftkit.flow.plan_adapter import TokenizerOf

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
@disable_option
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
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write and prove another export, such as merged, of a finished run or of an adapter, without training.

    Of a RUN the records and the base model must still be where its recipe says. Exports that are there stay as they
    are; one of the same name is replaced once the new one is proved.

    An ADAPTER is a folder in PEFT's format (adapter_config.json and adapter_model.safetensors), whoever made it. Its
    export is written to OUT/exports/EXPORT, beside those that are there of the same adapter.
    """
    from graftkit.flow.adapter_folder import is_adapter_folder

    path = Path(folder)
    if is_adapter_folder(path):
        _export_adapter(
            path, use, options, Path(out) if out else None, (base, quantizer, tokenizer, other_base), disable, as_json
        )
        return
    given = {
        "--out": out,
        "--base": base,
        "--quantizer": quantizer,
        "--tokenizer": tokenizer,
        "--other-base": other_base,
    }
    unused = [name for name, value in given.items() if value]
    if unused:
        hint = "A run has its own base model and folder. An adapter's folder has an adapter_config.json."
        raise RequestError(
            f"{', '.join(unused)}: only for an adapter's folder, and this is none", where=folder, hint=hint
        )
    from graftkit.flow.add_export import add_export

    with output_to_stderr(), cancel_on_signals() as cancel, show_progress() as on_event:
        host = host_of_run(folder, disable)
        result = add_export(path, use, options, host=host, on_event=on_event, cancel=cancel)
    click.echo(json_line({"folder": str(result.folder), **result.manifest}) if as_json else summary(result))


def _export_adapter(
    path: Path,
    use: str,
    options: tuple[str, ...],
    out: Path | None,
    asked: tuple[str | None, str | None, TokenizerOf | None, bool],
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    from graftkit.flow.plan_adapter import plan_adapter

    base, quantizer, tokenizer, other_base = asked
    with output_to_stderr(), cancel_on_signals() as cancel, show_progress() as on_event:
        host = host_of_run(str(path), disable)
        planned = plan_adapter(path, host, base=base, quantizer=quantizer, tokenizer=tokenizer, other_base=other_base)
        from graftkit.flow.export_adapter import export_adapter

        found = export_adapter(planned, use, options, out=out, host=host, on_event=on_event, cancel=cancel)
    if as_json:
        merge = {"merge": found.merge.model_dump(mode="json", exclude_unset=True)} if found.merge else {}
        click.echo(json.dumps({"folder": str(found.folder), "proof": found.proof, **merge}))
        return
    click.echo("\n".join(export_lines(found.folder, found.proof, found.merge)))
