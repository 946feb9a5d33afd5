"""What plugins add to a report comes back from the disk as it was."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from graftkit import ReportChart, ReportSection, ReportTable, ReportText
from graftkit.errors import FolderError
from graftkit.flow.reporting.report_sections import keep_sections, kept_sections, plain_sections


def test_sections_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "sections.json"
    parts = [
        ReportText("<b>\ud800", preformatted=True),
        ReportTable(["a", "b"], [["x", 1.5], [3, float("nan")]], caption="of"),
        ReportChart({"c": [(1, 2.0), (2, float("inf"))]}, y_label="watt"),
    ]
    keep_sections(path, [("plugin 'p'", ReportSection("t", parts)), ("q", ReportSection("empty", []))])
    shown = ReportTable(["a", "b"], [["x", 1.5], [3, "nan"]], caption="of")
    curves = {"c": [[1.0, 2.0]]}
    found = kept_sections(path)
    assert [plugin for plugin, _ in found] == ["plugin 'p'", "q"] and not found[1][1].parts
    assert list(found[0][1].parts[:2]) == [parts[0], shown]
    chart = found[0][1].parts[2]
    assert isinstance(chart, ReportChart) and chart.y_label == "watt"
    assert {name: list(map(list, points)) for name, points in chart.curves.items()} == curves
    keep_sections(path, [])
    assert not path.exists() and kept_sections(path) == []


@pytest.mark.parametrize(
    "text", ['{"sections": 3}', '{"sections": [{"plugin": "p", "title": 3, "parts": []}]}', '{"sections": [[]]}', "{}"]
)
def test_damaged_sections_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(FolderError, match="it is damaged"):
        kept_sections(tmp_path / "s.json")


class OwnText(ReportText):
    """A plugin's own."""


class OwnTitle(str):
    def __html__(self) -> str:
        return "<script>"


def changed(part: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        object.__setattr__(part, name, value)
    return part


def test_what_plugins_derive_becomes_cores_own() -> None:
    [found] = plain_sections([ReportSection(OwnTitle("t"), [OwnText("x"), ReportTable(["n"], [[2**1000]])])])
    assert type(found.title) is str and found.title == "t"
    assert found.parts == (ReportText("x"), ReportTable(["n"], [[2**1000]]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: changed(ReportSection("t", []), title=b"x"), "bytes"),
        (lambda: changed(ReportSection("t", []), parts=["<b>"]), "a part of ReportSection is str"),
        (lambda: changed(ReportSection("t", []), parts=repeat(ReportText("x" * 100_000))), "more than 16 MiB"),
        (lambda: ReportSection("t", [changed(ReportText("x"), text=5)]), "ReportText.text is int"),
        (lambda: ReportSection("t", [changed(ReportTable(["a"], []), rows=[["b", "c"]])]), "has 1 columns"),
        (lambda: ReportSection("t", [ReportText("x" * (17 << 20))]), "more than 16 MiB"),
    ],
)
def test_what_can_not_be_drawn_is_found_before_it_is_kept(make: Callable[[], ReportSection], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        plain_sections([make()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReportSection("t", repeat(ReportText("x"))),  # type: ignore[arg-type]
        lambda: ReportTable(["a"], repeat(["b"])),  # type: ignore[arg-type]
        lambda: ReportTable(["a"], [repeat("b")]),  # type: ignore[list-item]
        lambda: ReportTable(["a"], [[10**400]]),
        lambda: ReportText("x", preformatted="yes"),  # type: ignore[arg-type]
    ],
)
def test_a_part_without_an_end_or_of_another_type_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"report takes|columns|bits|is str, not bool"):
        make()
