"""Draws charts as SVG: a wide drawing, and a narrow one for small screens, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

from markupsafe import Markup

from graftkit.report.palette import SERIES
from graftkit.report.series import Curve
from graftkit.visible import one_line

__all__ = ["Bar", "Line", "bar_chart", "line_chart", "ticks"]


@dataclass(frozen=True, slots=True)
class Line:
    """How a curve is drawn.

    Attributes:
        curve: Its points.
        colour: The number of its colour; those after the last begin anew, dashed.
        faint: Whether it is the background of another line of its colour, without an entry in the legend.
        marked: Whether its points are marked.
    """

    curve: Curve
    colour: int = 0
    faint: bool = False
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: what it is of, its value, what is written at its end, and the number of its colour."""

    name: str
    value: float
    label: str
    colour: int = 0


@dataclass(frozen=True, slots=True)
class _Size:
    """A drawing's size, and which screens it is for."""

    name: str
    width: int
    height: int


_At = Callable[[float, float], tuple[float, float]]

_SIZES = (_Size("wide", 760, 280), _Size("narrow", 340, 250))
_LEFT, _RIGHT, _BOTTOM, _LINE = 52, 12, 38, 18
_CHARACTER = 6.4
"""About the width of a character of 12 pixels."""
_MOST_DESCRIBED = 2000
"""How many characters of a description are read out."""


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, *, described: str, from_zero: bool = False) -> Markup:
    """Draws lines over one axis.

    Args:
        lines: The lines, the first one below the others.
        x_label: What the horizontal axis counts.
        y_label: What the vertical axis measures.
        described: What the chart shows, for those who can't see it.
        from_zero: Whether the vertical axis begins at 0.

    Returns:
        `<svg>` elements, of which a page shows one; nothing where there are no points.
    """
    shown = [line for line in map(_drawable, lines) if line.curve.points]
    if not shown:
        return Markup("")
    return Markup("").join(_lines(size, shown, x_label, y_label, described, from_zero) for size in _SIZES)


def bar_chart(bars: Sequence[Bar], *, described: str) -> Markup:
    """Draws bars below one another, each with its name above it, so that no name is too long."""
    return Markup("").join(_bars(size, bars, described) for size in _SIZES)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers between two bounds, at most so many.

    Args:
        low: The lower bound.
        high: The upper one.
        most: How many numbers at most.

    Example:
        >>> ticks(0, 1200)
        [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0]
    """
    span = high - low
    if span < _SMALLEST:
        return [low]
    exponent = math.floor(math.log10(span / most))
    power = 10.0**exponent
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 1 - exponent) for number in range(first, last + 1)]


_LARGEST, _SMALLEST = 1e300, 1e-300
"""Numbers beyond the one are drawn as if they were it, and differences below the other are none: a chart's own
computations with them would overflow."""


def _drawable(line: Line) -> Line:
    points = (point for point in line.curve.points if math.isfinite(point[1]))
    bounded = tuple((_bounded(x), _bounded(y)) for x, y in points)
    return replace(line, curve=Curve(line.curve.name, bounded))


def _bounded(value: float) -> float:
    return max(-_LARGEST, min(_LARGEST, value))


def _lines(size: _Size, lines: Sequence[Line], x_label: str, y_label: str, described: str, from_zero: bool) -> Markup:
    xs = [x for line in lines for x, _ in line.curve.points]
    ys = [y for line in lines for _, y in line.curve.points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    low = min(0.0, low) if from_zero else low
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = (low if from_zero and low == 0 else low - room), high + room
    legend, top = _legend(size, lines)
    height = size.height + top - _LINE
    across, down = size.width - _LEFT - _RIGHT, height - top - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - left) / (right - left) if right > left else 0.5
        return _LEFT + share * across, top + (high - y) / (high - low) * down

    parts = [*legend, *_grid(size, at, (left, right), (low, high), height)]
    most = int(size.width / _CHARACTER)
    parts.append(_text(_LEFT + across / 2, height - 4, one_line(x_label, most), anchor="middle"))
    parts.append(_text(4, 12, one_line(y_label, most)))
    for line in lines:
        places = [at(x, y) for x, y in line.curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{_classes(line)}" points="{path}"/>')
        if line.marked or len(places) == 1:
            dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
            parts.append(f'<g class="d{line.colour % SERIES}">{dots}</g>')
    return _svg(size, height, described, parts)


def _grid(size: _Size, at: _At, across: tuple[float, float], down: tuple[float, float], height: float) -> list[str]:
    """Returns lines at round numbers of the vertical axis, and the numbers of both.

    Args:
        size: The drawing's size.
        at: Where a point stands.
        across: The bounds of the horizontal axis.
        down: Those of the vertical one.
        height: Of the drawing.
    """
    parts = []
    for value in ticks(*down, most=5):
        y = at(across[0], value)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{size.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, _number(value), anchor="end"))
    for value in ticks(*across, most=8 if size.width > 500 else 4):
        x = at(value, down[0])[0]
        parts.append(_text(x, height - _BOTTOM + 16, _number(value), anchor="middle"))
    return parts


def _legend(size: _Size, lines: Sequence[Line]) -> tuple[list[str], int]:
    """Returns the names of the lines, as many on a line as there is room for, and where the chart begins below them."""
    named = [line for line in lines if not line.faint]
    x, y = float(_LEFT), 30
    parts = []
    for line in named:
        name = one_line(line.curve.name, int((size.width - _LEFT - 30) / _CHARACTER))
        width = 26 + len(name) * _CHARACTER + 14
        if x > _LEFT and x + width > size.width:
            x, y = float(_LEFT), y + _LINE
        parts.append(f'<line class="{_classes(line)}" x1="{x:.0f}" x2="{x + 20:.0f}" y1="{y - 4}" y2="{y - 4}"/>')
        parts.append(_text(x + 26, y, name))
        x += width
    return parts, y + 12


def _bars(size: _Size, bars: Sequence[Bar], described: str) -> Markup:
    longest = max((bar.value for bar in bars if math.isfinite(bar.value)), default=0.0) or 1.0
    labels = max((len(bar.label) for bar in bars), default=0) * _CHARACTER + 12
    parts = []
    for number, bar in enumerate(bars):
        y = number * 42
        length = max(1.0, bar.value / longest * (size.width - labels)) if math.isfinite(bar.value) else 1.0
        parts.append(_text(0, y + 14, one_line(bar.name, int(size.width / _CHARACTER))))
        parts.append(f'<rect class="f{bar.colour % SERIES}" x="0" y="{y + 19}" width="{length:.1f}" height="14"/>')
        parts.append(_text(length + 6, y + 31, bar.label))
    return _svg(size, max(1, len(bars)) * 42, described, parts)


def _svg(size: _Size, height: float, described: str, parts: Sequence[str]) -> Markup:
    said = escape(one_line(described, _MOST_DESCRIBED))
    return Markup(
        f'<svg class="{size.name}" viewBox="0 0 {size.width} {height:.0f}" role="img" aria-label="{said}">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(one_line(text))}</text>'


def _classes(line: Line) -> str:
    return f"l{line.colour % SERIES}{' faint' if line.faint else ''}{' dashed' if line.colour >= SERIES else ''}"


def _number(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.4g}"
