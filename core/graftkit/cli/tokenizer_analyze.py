"""`toolkit tokenizer analyze`: is extending worth it, and by how many tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli.options import disable_option, json_option, open_host
from graftkit.cli.terminal import json_line
from graftkit.cli.tokenizer_options import extendable, min_frequency_option, reference, short_names, use_option
from graftkit.interfaces.vocabulary_limits import MOST_IDS

if TYPE_CHECKING:
    from graftkit.interfaces.tokenizer import Tokenizer
    from graftkit.interfaces.vocabulary import ExtensionPlan
    from graftkit.vocabulary.analyze import Analysis, Point

__all__ = ["command"]

_LITTLE = 50_000


class _Counts(click.ParamType[list[int]]):
    """Whole numbers with commas between them."""

    name = "N,N,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        try:
            counts = sorted({int(part) for part in str(value).split(",")})
        except ValueError:
            counts = []
        if not counts or counts[0] < 1 or counts[-1] > MOST_IDS:
            self.fail(
                f"{value!r} is no list of whole numbers from 1 to {MOST_IDS:,}, such as 500,1000,2000", param, ctx
            )
        return counts


@click.command("analyze")
@click.argument("base")
@click.argument("files", nargs=-1, required=True)
@click.option("--tokens", "counts", default="500,1000,2000,5000", show_default=True, type=_Counts(), help="To try.")
@click.option(
    "--holdout", default=0.1, show_default=True, type=click.FloatRange(0, 0.5, min_open=True), help="Share of text."
)
@click.option("--seed", default=0, show_default=True, type=int, help="Draws other holdout files.")
@min_frequency_option
@click.option("--out", type=click.Path(path_type=Path), help="Draw the curve: FILE.svg, .png, or .html with the table.")
@use_option
@disable_option
@json_option
def command(
    base: str,
    files: tuple[str, ...],
    counts: list[int],
    holdout: float,
    seed: int,
    min_frequency: int,
    out: Path | None,
    use: str | None,
    disable: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure on holdout text what tokens learnt from FILES would save the tokenizer BASE.

    Whole files are held out (of a single one, stretches). It is worth it where at least 3% of their tokens are saved;
    the number advised is then the smallest that gives 80% of the largest saving, since each further token saves less
    and costs a row of the embeddings.
    """
    from graftkit.cli.progress import show_progress
    from graftkit.cli.tables import show_table
    from graftkit.cli.watched_texts import watched
    from graftkit.corpus.texts import split_by_file, text_files
    from graftkit.flow.base_files.find_tokenizer import find_tokenizer
    from graftkit.flow.records.datasets import open_dataset
    from graftkit.flow.state.told_stage import told_stage
    from graftkit.interfaces.vocabulary import ExtensionSpec
    from graftkit.report.vocabulary_figures import check_picture, savings_figure, write_picture
    from graftkit.vocabulary.analyze import analyze
    from graftkit.vocabulary.cost import embedding_cost

    host = open_host(disable)
    if out:
        check_picture(out)
    learn, texts = split_by_file(text_files(files, partial(open_dataset, host)), holdout, seed)
    found = find_tokenizer(host, reference(base), use)
    backend = extendable(host, found)
    ExtensionSpec(counts[-1], min_frequency).check_room(found.tokenizer.vocab_size)

    with show_progress() as on_event, told_stage("analyzing", on_event) as stage:

        def extend(count: int) -> ExtensionPlan:
            read = watched(learn, learn.bytes, stage.progress("KB"))
            return backend.extend(found.tokenizer, read, ExtensionSpec(count, min_frequency))

        analysis = analyze(
            found.tokenizer,
            extend,
            texts,
            counts,
            learnt_from=learn.bytes,
            cost=embedding_cost(found.model) if found.model else None,
        )
    headers, rows = table(analysis)
    if out:
        title = f"{short_names([base])[base]}: {len(learn.files)} files, {learn.bytes / 1e6:.1f} MB"
        write_picture(out, savings_figure(analysis, title), headers, rows, title)
    if as_json:
        files_held = [str(path) for path in texts.files]
        click.echo(json_line({**analysis.to_json(), "holdout_files": files_held}))
        return
    where = f"{len(texts.files)} holdout files" if learn.files != texts.files else "holdout stretches of it"
    click.echo(
        f"learnt from {len(learn.files)} files, {learn.bytes / 1e6:.2f} MB; "
        f"measured on {where}, {texts.bytes / 1e6:.2f} MB\n"
    )
    show_table(headers, rows)
    click.echo()
    for line in [*verdict(analysis), *losses(analysis, found.tokenizer)]:
        click.echo(line)
    most = analysis.points[-1].asked
    if most == counts[-1] and analysis.advice and analysis.advice.asked == most:
        click.echo(f"More may save more: try --tokens {most},{2 * most},{4 * most}.")
    if most < counts[-1]:
        click.echo(f"The texts hold {most:,} tokens that occur {min_frequency} times, no more.")
    if out:
        click.echo(f"drew {out}")


def table(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Returns the headers and rows that show an analysis; the base is the first row."""
    headers = ["tokens learnt", "added", "bytes/token", "saved", "used holdout", "scaffolding", "parameters"]
    base = ["0 (base)", "", f"{analysis.base.bytes_per_token:.3f}", "", "", "", ""]
    rows = [base, *(_row(point) for point in analysis.points)]
    shown = 7 if analysis.points[0].parameters is not None else 6
    return headers[:shown], [row[:shown] for row in rows]


def _row(point: Point) -> list[str]:
    return [
        f"{point.asked:,}",
        f"{point.added:,}",
        f"{point.bytes_per_token:.3f}",
        f"{point.saved:.1%}",
        f"{point.used:.0%}",
        f"{point.scaffolding:,}",
        f"+{point.parameters:,}" if point.parameters is not None else "",
    ]


def verdict(analysis: Analysis) -> list[str]:
    """Says in words whether to extend, and by how much."""
    from graftkit.vocabulary.analyze import ENOUGH_OF_BEST, WORTH_IT

    advice, best = analysis.advice, max(analysis.points, key=lambda point: point.saved)
    lines = []
    if advice is None:
        lines.append(
            f"Not worth it: {best.asked:,} tokens would save {best.saved:.1%} of holdout text's tokens; "
            f"under {WORTH_IT:.0%} the new rows cost more than they give."
        )
    else:
        lines.append(
            f"Worth it: take {advice.asked:,} tokens, which save {advice.saved:.1%} of holdout text's tokens "
            f"(the smallest number with {ENOUGH_OF_BEST:.0%} of the largest saving, {best.saved:.1%})."
        )
    if analysis.base.bytes < _LITTLE:
        lines.append(f"Only {analysis.base.bytes:,} bytes are held out: more text would make this surer.")
    return lines


def losses(analysis: Analysis, base: Tokenizer) -> list[str]:
    """Says in words what the base loses, of these texts and of any, and what extending does about it."""
    from graftkit.vocabulary.losses import describe_losses, lost_characters

    lines = []
    lost, still = analysis.base.lost, analysis.extended.lost
    if lost:
        shown = ", ".join(f"{character!r} ({count:,} times)" for character, count in list(lost.items())[:5])
        lines.append(f"The base loses {_characters(len(lost))} of these texts: {shown}. {_remedy(len(still))}")
    lost_of_any, still_of_any = lost_characters(base), lost_characters(analysis.plan.tokenizer)
    if lost_of_any:
        remedy = _remedy(len(still_of_any))
        lines.append(f"In any text the base loses {describe_losses(lost_of_any)}. {remedy}")
    return lines


def _characters(count: int) -> str:
    return f"{count:,} characters" if count != 1 else "1 character"


def _remedy(after: int) -> str:
    if not after:
        return "Extended, it loses none: `extend` adds the bytes that it lacks."
    return f"Extended, it still loses {after:,}: this family changes text before it cuts it."
