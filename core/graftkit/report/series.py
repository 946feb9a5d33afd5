"""A run's curves as figures: few points that show what many would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Curve", "curve_of", "smoothed", "sparkline", "thinned"]

Points = tuple[tuple[float, float], ...]

_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart.

    Attributes:
        name: What it shows.
        points: Its points, in the order of x.
    """

    name: str
    points: Points


def curve_of(name: str, lines: Sequence[Mapping[str, Any]], key: str, most: int = 400) -> Curve:
    """Returns what metrics.jsonl says of each step as a curve of few points.

    Args:
        name: The curve's name.
        lines: The lines of metrics.jsonl, each of which has the key.
        key: What to draw.
        most: How many points at most.
    """
    return Curve(name, thinned([(float(line["step"]), float(line[key])) for line in lines], most))


def thinned(points: Sequence[tuple[float, float]], most: int) -> Points:
    """Returns at most so many points: of each stretch of them the lowest and the highest, so that no peak is lost.

    Args:
        points: The points, in the order of x; a line drawn through all of them looks the same.
        most: How many there may be, at least 4.
    """
    if len(points) <= most:
        return tuple(points)
    stretches = (most - 2) // 2
    inner = points[1:-1]
    found = [points[0]]
    for number in range(stretches):
        part = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        low, high = min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])
        found += sorted({low, high})
    return (*found, points[-1])


def smoothed(points: Sequence[tuple[float, float]]) -> Points:
    """Returns the points with each y the mean of those around it, over a fiftieth of the way at least 5 points wide."""
    reach, last = max(2, len(points) // 100), len(points)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    found = []
    for at, (x, _) in enumerate(points):
        start, end = max(0, at - reach), min(last, at + reach + 1)
        found.append((x, (sums[end] - sums[start]) / (end - start)))
    return tuple(found)


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Returns values as a line of small bars, each the mean of its part of them.

    Example:
        >>> sparkline([4, 3, 2, 1], width=4)
        '█▆▃▁'
    """
    if not values:
        return ""
    width = min(width, len(values))
    parts = [values[at * len(values) // width : (at + 1) * len(values) // width] for at in range(width)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_LEVELS[round((mean - low) / span * (len(_LEVELS) - 1))] for mean in means)
