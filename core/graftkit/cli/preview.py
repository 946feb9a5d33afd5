"""`toolkit preview`: training rows as tokens, the supervised ones marked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import click

from graftkit.cli.options import disable_option, host_of, recipe_arguments
from graftkit.cli.streams import output_to_stderr
from graftkit.cli.terminal import Styled, say
from graftkit.flow.run import plan
from graftkit.flow.tokenizer import make_vocabulary
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.store.token_store import Example

__all__ = ["command"]


@click.command("preview")
@recipe_arguments
@click.option("--rows", type=click.IntRange(1), default=3, show_default=True, help="How many rows to show.")
@disable_option
def command(recipe: str, overrides: tuple[str, ...], rows: int, disable: tuple[str, ...]) -> None:
    """Show the first training rows of a RECIPE as tokens: [supervised] ones in brackets, and green on a terminal."""
    with output_to_stderr():
        host = host_of(recipe, overrides, disable)
        request = plan(recipe, overrides=overrides, host=host)
        encoder = make_vocabulary(request)[0].encoder if request.vocabulary else request.encoder
    for row in islice(request.rows.train, rows):
        for example in encoder.encode(row).examples:
            say([Styled(f"{row.where}  ({len(example.ids)} tokens)", "bold")])
            say(_tokens(encoder.tokenizer, example), end="\n\n")


def _tokens(tokenizer: Tokenizer, example: Example) -> Iterator[str | Styled]:
    for token, learnt in zip(example.ids.tolist(), example.supervised.tolist(), strict=True):
        text = tokenizer.token_bytes(token).decode("utf-8", "backslashreplace").replace("\n", "\\n\n")
        yield Styled(f"[{text}]", "green") if learnt else text
