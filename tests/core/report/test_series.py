"""Few points show what many would."""

from __future__ import annotations

import math

import pytest
from graftkit.report.chart import Line, line_chart, ticks
from graftkit.report.series import Curve, smoothed, sparkline, thinned


def test_a_thinned_curve_keeps_its_ends_and_every_peak() -> None:
    points = [(float(x), math.sin(x / 900)) for x in range(10_000)]
    points[4321] = (4321.0, 50.0)
    points[7777] = (7777.0, -50.0)
    found = thinned(points, 400)
    assert len(found) <= 400 and found[0] == points[0] and found[-1] == points[-1]
    assert (4321.0, 50.0) in found and (7777.0, -50.0) in found and list(found) == sorted(found)
    assert thinned(points[:400], 400) == tuple(points[:400])


@pytest.mark.parametrize("count", [0, 1, 5, 401, 500, 9_999])
@pytest.mark.parametrize("most", [4, 100, 400])
def test_no_more_points_than_asked_for(count: int, most: int) -> None:
    assert len(thinned([(float(x), 1.0) for x in range(count)], most)) <= max(most, 0)


def test_a_running_mean_of_a_line_with_noise_is_the_line() -> None:
    points = [(float(x), 3.0 + (1 if x % 2 else -1)) for x in range(1000)]
    assert all(abs(y - 3) <= 0.2 for _, y in smoothed(points)[3:-3])
    assert [x for x, _ in smoothed(points)] == [x for x, _ in points]


def test_a_sparkline_falls_as_the_loss_does() -> None:
    assert sparkline([4, 3, 2, 1], 4) == "█▆▃▁" and sparkline([]) == "" and sparkline([2.0]) == "▁"
    assert len(sparkline(list(range(1000)), 20)) == 20


def test_ticks_are_round_and_within_the_bounds() -> None:
    for low, high in ((0.0, 1.0), (1.2, 1.9), (1, 10_000), (-3, 5), (1e-6, 3e-5), (0.0, 1e-13), (-1e300, 1e300)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 8 and all(low <= value <= high for value in found), (low, high, found)
    assert ticks(2.0, 2.0) == [2.0] and ticks(0.0, 5e-324) == [0.0]


@pytest.mark.parametrize("value", [1.7e308, 5e-324])
def test_a_chart_of_numbers_at_the_ends_of_floating_point_is_drawn(value: float) -> None:
    curve = Curve("odd", ((-value, value), (0.0, 0.0), (value, -value)))
    drawn = line_chart([Line(curve)], "x" * 10_000, "y" * 10_000, described="z" * 10_000)
    assert "polyline" in drawn and "nan" not in drawn and "inf" not in drawn and len(drawn) < 20_000


def test_a_chart_leaves_out_what_is_no_number_and_escapes_names() -> None:
    curve = Curve('<script>&"\x1b[2J', ((1.0, math.nan), (2.0, 1.0), (3.0, math.inf), (4.0, 2.0)))
    drawn = line_chart([Line(curve)], "step", "loss", described='"><script>')
    assert "<script" not in drawn and "nan" not in drawn and "inf" not in drawn and r"\x1b" in drawn
    assert line_chart([Line(Curve("none", ((1.0, math.nan),)))], "step", "loss", described="") == ""
