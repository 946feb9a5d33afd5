"""What plugins add to a report comes back from the disk as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit import ReportChart, ReportSection, ReportTable, ReportText
from graftkit.errors import FolderError
from graftkit.flow.reporting.report_sections import keep_sections, kept_sections


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
