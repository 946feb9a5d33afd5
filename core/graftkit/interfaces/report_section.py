"""What a plugin adds to a run's report: text, tables and curves, and never HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = [
    "MOST_CURVES",
    "MOST_PARTS",
    "MOST_POINTS",
    "MOST_ROWS",
    "MOST_SECTIONS",
    "ReportChart",
    "ReportPart",
    "ReportSection",
    "ReportTable",
    "ReportText",
]

MOST_SECTIONS, MOST_PARTS, MOST_ROWS, MOST_COLUMNS, MOST_CURVES, MOST_POINTS = 8, 20, 200, 12, 8, 100_000
"""Sections of one plugin, parts of a section, rows and columns of a table, curves of a chart and points of a curve."""


def _check(found: object, kind: type | tuple[type, ...], what: str) -> None:
    if not isinstance(found, kind):
        names = [each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,))]
        raise TypeError(f"{what} is {type(found).__name__}, not {' or '.join(names)}")


def _check_count(found: Sequence[Any] | Mapping[Any, Any], most: int, what: str) -> None:
    if len(found) > most:
        raise ValueError(f"a report takes {most:,} {what} at most")


def _at_most(found: Iterable[Any], most: int) -> tuple[Any, ...]:
    """Returns what is given, or one more of it than a report takes: there may be no end to it."""
    return tuple(islice(found, most + 1))


def _check_cell(cell: object) -> None:
    _check(cell, (str, int, float), "a cell of ReportTable")
    if isinstance(cell, int) and cell.bit_length() > _MOST_BITS:
        raise ValueError(f"a cell of ReportTable is a whole number of more than {_MOST_BITS:,} bits")


_MOST_BITS = 1023
"""The longest whole number of a cell, which is one of floating point, too."""


@dataclass(frozen=True, slots=True)
class ReportText:
    """A paragraph, of which 2000 characters are shown.

    Attributes:
        text: The text; whatever stands in it is shown as it is, HTML too.
        preformatted: Whether spaces and line ends are kept, in a font of fixed width.

    Raises:
        TypeError: The text is no text.
    """

    text: str
    preformatted: bool = False

    def __post_init__(self) -> None:
        _check(self.text, str, "ReportText.text")
        _check(self.preformatted, bool, "ReportText.preformatted")


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table; of each cell 2000 characters are shown.

    Attributes:
        header: The columns' names.
        rows: Texts and numbers, as many a row as there are columns.
        caption: What the table is of, for those who can't see it.

    Raises:
        TypeError: A cell is neither text nor number.
        ValueError: A row has another length than the header, or there is more than a report takes.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    caption: str = ""

    def __post_init__(self) -> None:
        _check(self.caption, str, "ReportTable.caption")
        object.__setattr__(self, "header", _at_most(self.header, MOST_COLUMNS))
        rows = tuple(_at_most(row, MOST_COLUMNS) for row in _at_most(self.rows, MOST_ROWS))
        object.__setattr__(self, "rows", rows)
        _check_count(self.header, MOST_COLUMNS, "columns of a table")
        _check_count(self.rows, MOST_ROWS, "rows of a table")
        for row in (self.header, *self.rows):
            if len(row) != len(self.header) or not row:
                raise ValueError(f"the table's header has {len(self.header)} columns, a row has {len(row)}")
            for cell in row:
                _check_cell(cell)


@dataclass(frozen=True, slots=True)
class ReportChart:
    """Curves over one axis, drawn as the report's own are; points that are no numbers are left out.

    Attributes:
        curves: Each curve's points `(x, y)` by the curve's name, in the order of x.
        x_label: What the horizontal axis counts, such as "step".
        y_label: What the vertical axis measures, with its unit.

    Raises:
        TypeError: A name or a point is of another type.
        ValueError: There is more than a report takes.
    """

    curves: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str = "step"
    y_label: str = ""

    def __post_init__(self) -> None:
        _check(self.curves, Mapping, "ReportChart.curves")
        _check_count(self.curves, MOST_CURVES, "curves of a chart")
        for name, points in self.curves.items():
            _check(name, str, "a curve's name")
            _check_count(points, MOST_POINTS, "points of a curve")
        for label in (self.x_label, self.y_label):
            _check(label, str, "a label of ReportChart")
        numbers = {
            name: tuple((float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y))
            for name, points in self.curves.items()
        }
        object.__setattr__(self, "curves", numbers)


ReportPart = ReportText | ReportTable | ReportChart


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A section of `report.html`, below core's own and named with its plugin.

    Attributes:
        title: Its heading.
        parts: What stands in it, in order.

    Raises:
        TypeError: The title is no text, or a part is of another type.
        ValueError: There are more parts than a report takes.

    Example:
        >>> ReportSection("Energy", [ReportText("1.2 kWh"), ReportTable(["stage", "kWh"], [["training", 1.1]])]).title
        'Energy'
    """

    title: str
    parts: Sequence[ReportPart]

    def __post_init__(self) -> None:
        _check(self.title, str, "ReportSection.title")
        object.__setattr__(self, "parts", _at_most(self.parts, MOST_PARTS))
        _check_count(self.parts, MOST_PARTS, "parts of a section")
        for part in self.parts:
            _check(part, (ReportText, ReportTable, ReportChart), "a part of ReportSection")
