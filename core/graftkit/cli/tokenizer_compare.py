"""`toolkit tokenizer compare`: tokenizers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import disable_option, json_option, open_host
from graftkit.cli.terminal import json_line
from graftkit.cli.tokenizer_options import reference, short_names

if TYPE_CHECKING:
    from graftkit.vocabulary.compare import Comparison

__all__ = ["command"]

_SCRIPTS_SHOWN = 6
_SMALL = 0.001


class _Command(click.Command):
    """Lets `--on` take several files, as a shell makes them of a pattern: up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        after_on = False
        for argument in args:
            if argument == "--on" or argument.startswith("-"):
                after_on = argument == "--on"
                given += [] if after_on else [argument]
            else:
                given += ["--on", argument] if after_on else [argument]
        return super().parse_args(ctx, given)


@click.command("compare", cls=_Command)
@click.argument("tokenizers", nargs=-1, required=True)
@click.option("--on", "files", multiple=True, required=True, metavar="FILES...", help="The corpus; several may follow.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw it: FILE.svg, .png, or .html with the table.")
@disable_option
@json_option
def command(
    tokenizers: tuple[str, ...], files: tuple[str, ...], out: Path | None, disable: tuple[str, ...], as_json: bool
) -> None:
    """Put TOKENIZERS side by side on one corpus: tokenizers' folders or files, or models."""
    from graftkit.cli.progress import show_progress
    from graftkit.cli.tables import show_table
    from graftkit.cli.watched_texts import watched
    from graftkit.corpus.texts import text_files
    from graftkit.flow.base_files.find_tokenizer import find_tokenizer
    from graftkit.flow.records.datasets import open_dataset
    from graftkit.flow.state.told_stage import told_stage
    from graftkit.report.vocabulary_figures import check_picture, comparison_figure, write_picture
    from graftkit.vocabulary.compare import compare_on

    host = open_host(disable)
    if out:
        check_picture(out)
    texts = text_files(files, partial(open_dataset, host))
    found = {name: find_tokenizer(host, reference(given)).tokenizer for given, name in short_names(tokenizers).items()}
    results: dict[str, Comparison] = {}
    with show_progress() as on_event:
        for name, tokenizer in found.items():
            with told_stage(name, on_event) as stage:
                results[name] = compare_on(tokenizer, watched(texts, texts.bytes, stage.progress("KB")))
    headers, rows = table(results)
    title = f"{len(texts.files)} files, {texts.bytes / 1e6:.2f} MB"
    if out:
        write_picture(out, comparison_figure(bars(results), title), headers, rows, title)
    if as_json:
        click.echo(json_line({name: result.to_json() for name, result in results.items()}))
        return
    click.echo(f"{title}\n")
    show_table(headers, rows)
    if out:
        click.echo(f"\ndrew {out}")


def table(results: Mapping[str, Comparison]) -> tuple[list[str], list[list[str]]]:
    """Returns the headers and rows that show a comparison: a column a tokenizer."""
    columns = list(results.values())
    lines = {
        "ids": [f"{result.ids:,}" for result in columns],
        "tokens": [f"{result.measured.tokens:,}" for result in columns],
        "bytes/token": [f"{result.measured.bytes_per_token:.3f}" for result in columns],
        **{f"  {name}": [_script(result, name) for result in columns] for name in scripts_shown(results)},
        "ids used": [f"{len(result.measured.counts):,} ({result.used_share:.0%})" for result in columns],
        "dead ids": [f"{result.unreachable:,}" for result in columns],
        "lossless, as declared": ["yes" if result.declared_lossless else "no" for result in columns],
        "texts that come back": [f"{result.measured.whole:,} of {result.measured.texts:,}" for result in columns],
        "characters lost here": [f"{len(result.measured.lost):,}" for result in columns],
        "MB/s, roughly": [f"{result.megabytes_per_second:.1f}" for result in columns],
    }
    return ["", *results], [[name, *cells] for name, cells in lines.items()]


def scripts_shown(results: Mapping[str, Comparison]) -> list[str]:
    """Returns the scripts that are a thousandth of the corpus at least, the largest first, at most six."""
    scripts = next((result.scripts for result in results.values() if result.scripts), {})
    total = sum(share.bytes for share in scripts.values())
    return [name for name, share in scripts.items() if share.bytes >= _SMALL * total][:_SCRIPTS_SHOWN]


def bars(results: Mapping[str, Comparison]) -> dict[str, dict[str, float]]:
    """Returns bytes a token for each tokenizer, in all and by script."""
    names = scripts_shown(results)
    return {
        label: {
            "all": result.measured.bytes_per_token,
            **{name: result.scripts[name].bytes_per_token for name in names if name in result.scripts},
        }
        for label, result in results.items()
    }


def _script(result: Comparison, name: str) -> str:
    share = result.scripts.get(name)
    return f"{share.bytes_per_token:.3f}" if share else ""
