"""`toolkit preview`: training records as tokens, those that are learnt marked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import click

from graftkit.articles import counted
from graftkit.cli.options import disable_option, host_of, json_option, offline_option, recipe_arguments
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import Styled, say
from graftkit.flow.preview import Lengths, PreviewedExample, preview
from graftkit.visible import further_lines_indented

__all__ = ["command"]

_MEASURED = 500
"""How many records the lengths are taken of."""

_BARS = 8
_WIDTH = 40


@click.command("preview")
@recipe_arguments
@click.option(
    "--records", type=click.IntRange(1, 1_000_000_000), default=3, show_default=True, help="How many records to show."
)
@click.option("--where", metavar="FILE:LINE", help="Show this record, by the place that errors name.")
@json_option
@disable_option
@offline_option
def command(
    recipe: str, overrides: tuple[str, ...], records: int, where: str | None, as_json: bool, disable: tuple[str, ...]
) -> None:
    """Show the first training records of a RECIPE as tokens: [learnt] ones in brackets, and green on a terminal.

    Of words with tags each learnt token has its tag: [Ada/B-PER].

    What `plan` tells of the recipe comes first, on standard error, and what encoding cuts or leaves out of the first
    500 records. After the records come the share that is learnt and the lengths of those 500. With --json, which looks
    at no more records than it shows, each is a line with its tokens, ids, weights in the loss, and who wrote which part
    of its text.
    """
    with output_to_stderr():
        host = host_of(recipe, overrides, disable)
        measured = 0 if as_json else _MEASURED
        found = preview(recipe, records=records, where=where, measured=measured, overrides=overrides, host=host)
        # plugins' are among the recipe's, but for those that came up since
        for notice in dict.fromkeys([*found.notices, *host.take_notices()]):
            click.echo(further_lines_indented(f"note: {notice}"), err=True)
    for example in found.examples:
        if as_json:
            click.echo(json.dumps(example.to_json()))
        else:
            say([Styled(f"{example.where}  ({counted(len(example.ids), 'token', form='')})", "bold")])
            say(_tokens(example), end="\n\n")
    for place, further in found.not_shown.items():
        click.echo(f"{place}: {further:,} further examples are not shown", err=True)
    if found.sampled:
        compared = ": marked is what they are compared with" if found.lengths.learnt else ""
        say(f"nothing of this is learnt, but answers that the model samples{compared}")
    for line in _summary(found.lengths, "are compared with" if found.sampled else "are learnt"):
        say(line)


def _tokens(example: PreviewedExample) -> Iterator[str | Styled]:
    tags = example.tags or [""] * len(example.tokens)
    for token, weight, tag in zip(example.tokens, example.loss_weight, tags, strict=True):
        text = token.replace("\n", "\\n\n")
        yield Styled(f"[{text}{f'/{tag}' if tag else ''}]", "green") if weight else text


def _summary(found: Lengths, what: str) -> Iterable[str]:
    """Returns the share that is learnt, or `what` is done with it, and how many examples have which length."""
    lengths = found.lengths
    if not lengths:
        return
    share, every = found.learnt / sum(lengths), f"{sum(lengths):,} tokens in {counted(len(lengths), 'example')}"
    yield f"{share:.0%} of {every} {what}; lengths:" if share else f"{every}; lengths:"
    step = max(1, -(-max(lengths) // _BARS))
    counts = [sum(start < length <= start + step for length in lengths) for start in range(0, max(lengths), step)]
    for number, count in enumerate(counts):
        bar = "#" * round(_WIDTH * count / max(counts))
        yield f"{number * step + 1:>7}-{(number + 1) * step:<7} {count:>6} {bar}".rstrip()
