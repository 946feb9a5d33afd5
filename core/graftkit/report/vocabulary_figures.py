"""Draws what an analysis or a comparison of tokenizers found out."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import RequestError
from graftkit.report.closed_page import with_policy, without_style_attributes
from graftkit.store.files import check_new_file, write_new, write_new_text
from graftkit.suggest import known_names
from graftkit.visible import visible
from graftkit.vocabulary.analyze import Analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "check_picture", "comparison_figure", "savings_figure", "write_picture"]

PICTURES = (".svg", ".png", ".html")
_BLUE, _GREY, _ORANGE = "#1f5fa8", "#888888", "#c2571a"
_SETTINGS = {"svg.hashsalt": "graftkit", "svg.fonttype": "none"}


def check_picture(path: Path) -> None:
    """Makes sure before any work that a picture may be written there.

    Raises:
        RequestError: Its name has another ending.
        FolderError: There is such a file, or its folder is missing or can't be written.
    """
    if path.suffix not in PICTURES:
        raise RequestError(
            "a picture's name ends in .svg, .png or .html", where=str(path), hint=known_names(path.suffix, PICTURES)
        )
    check_new_file(path)


def savings_figure(analysis: Analysis, title: str) -> Figure:
    """Draws holdout bytes a token over the number of tokens added, with the base as a line to compare with."""
    from matplotlib.figure import Figure

    base = analysis.base.bytes_per_token
    added = [0, *(point.added for point in analysis.points)]
    sizes = [base, *(point.bytes_per_token for point in analysis.points)]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(base, color=_GREY, linewidth=1, linestyle="--", label=f"base: {base:.2f}")
    axes.plot(added, sizes, color=_BLUE, linewidth=1.5, marker="o", markersize=4, label="extended")
    if analysis.advice:
        advice = analysis.advice
        label = f"advised: {advice.asked:,} tokens, {advice.saved:.1%} fewer tokens"
        axes.plot([advice.added], [advice.bytes_per_token], "o", color=_ORANGE, markersize=9, label=label)
    axes.set_title(visible(title), fontsize=10, parse_math=False)
    axes.set_xlabel("tokens added")
    axes.set_ylabel("bytes a token, holdout text")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    low, high = min(sizes), max(sizes)
    room = max((high - low) * 0.15, 0.02 * base)
    axes.set_ylim(low - room, high + room)
    saved = axes.secondary_yaxis("right", functions=_saved_against(base))
    saved.set_ylabel("tokens saved")
    saved.yaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 3):g}%")
    axes.legend(frameon=False, loc="best")
    _plain(axes)
    return figure


def _saved_against(base: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Returns the ways from bytes a token to the share of tokens saved, and back."""
    return lambda size: 1 - base / size, lambda share: base / (1 - share)


def comparison_figure(values: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Draws bars, a group a script and in it a bar a tokenizer.

    Args:
        values: Tokenizer -> script -> bytes a token.
        title: What stands above it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(name for scripts in values.values() for name in scripts))
    figure = Figure(figsize=(max(6.0, 1.1 * len(groups) + 2), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(values)
    colors = matplotlib.colormaps["tab10"]
    for number, (label, scripts) in enumerate(values.items()):
        places = [place + (number - (len(values) - 1) / 2) * width for place in range(len(groups))]
        axes.bar(
            places,
            [scripts.get(name, 0) for name in groups],
            width * 0.92,
            label=visible(label),
            color=colors(number % 10),
        )
    axes.set_title(visible(title), fontsize=10, parse_math=False)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("bytes a token")
    figure.legend(frameon=False, loc="outside lower center", ncols=min(3, len(values)))
    _plain(axes)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def write_picture(
    path: Path, figure: Figure, headers: Sequence[str], rows: Sequence[Sequence[str]], title: str
) -> None:
    """Writes a figure as its file's name says; a page has the table below it.

    Args:
        path: The file, .png, .svg or .html.
        figure: The figure.
        headers: The table's headings.
        rows: Its rows.
        title: The page's title.

    Raises:
        FolderError: There is such a file.
        StorageError: The system refused.
    """
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        if path.suffix == ".png":
            write_new(path, lambda file: figure.savefig(file, format="png", dpi=150))
            return
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    write_new_text(path, svg if path.suffix == ".svg" else _page(svg[svg.index("<svg") :], headers, rows, title))


def _page(svg: str, headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    lines = [_row("th", headers), *(_row("td", row) for row in rows)]
    return with_policy(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escaped(title)}</title>'
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}</style>"
        f"<h1>{_escaped(title)}</h1>{without_style_attributes(svg)}<table>{''.join(lines)}</table></html>\n"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in cells)}</tr>"


def _escaped(text: str) -> str:
    return html.escape(visible(text))
