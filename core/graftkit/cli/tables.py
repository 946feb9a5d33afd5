"""Prints tables: with lines on a terminal, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import click

from graftkit.cli.terminal import console, is_terminal

__all__ = ["show_table", "side_by_side"]


_NARROWEST = 5
"""Columns of a terminal that a table's column takes at least, with its line and space; rich prints none in fewer."""


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table whose first column stands to the left and whose other ones stand to the right.

    A terminal that is too narrow for lines between columns is given plain ones, which it wraps.
    """
    if is_terminal() and console().width >= _NARROWEST * len(headers):
        _rich(headers, rows)
        return
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    for row in (headers, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        click.echo("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


def side_by_side(headers: Sequence[str], texts: Sequence[str]) -> None:
    """Prints texts in columns of the same width, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for header in headers:
        table.add_column(Text(header), ratio=1, overflow="fold")
    table.add_row(*map(Text, texts))
    console().print(table)


def _rich(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # names of files may hold brackets
    console().print(table)
