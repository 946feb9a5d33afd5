"""What a run's figures show: which curves and bars of it are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from graftkit.interfaces.report_section import ReportChart
from graftkit.report.chart import Bar, Line, bar_chart, line_chart
from graftkit.report.run_data import LengthFigures
from graftkit.report.run_manifest import Measurement
from graftkit.report.series import Curve, curve_of, smoothed, thinned

__all__ = [
    "bits_per_byte_bars",
    "length_bars",
    "loss_chart",
    "plugin_chart",
    "rate_chart",
    "reward_chart",
    "sampling_charts",
]

_MANY = 60
"""Steps from which on a mean is drawn over the loss of each."""


def loss_chart(steps: Sequence[Mapping[str, Any]], holdout: Mapping[int, float], unit: str) -> Markup:
    """Draws the loss of each step, its running mean where there are many, and the holdout loss where it was measured.

    Args:
        steps: What metrics.jsonl says of each step.
        holdout: Holdout losses by the step that they were measured after.
        unit: What the loss is counted in.
    """
    every = [(float(line["step"]), float(line["loss"])) for line in steps]
    return _by_step(every, holdout, "loss", f"loss, {unit}")


def reward_chart(steps: Sequence[Mapping[str, Any]], holdout: Mapping[int, float]) -> Markup:
    """Draws the mean reward of each step's sampled answers, which is minus what is reported as the loss.

    Args:
        steps: As for `loss_chart`.
        holdout: As for `loss_chart`.
    """
    every = [(float(line["step"]), 0.0 - float(line["loss"])) for line in steps]
    return _by_step(every, {step: 0.0 - loss for step, loss in holdout.items()}, "reward", "mean reward")


def sampling_charts(steps: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Draws how long each step's sampled answers are, and the shares of those cut off and of prompts without a spread.

    Args:
        steps: As for `loss_chart`; what a line does not say is not drawn.
    """
    told = [{"step": line["step"], **line.get("metrics", {})} for line in steps]

    def lines_of(names: Mapping[str, str]) -> list[Line]:
        known = {key: [line for line in told if isinstance(line.get(key), int | float)] for key in names}
        return [
            Line(curve_of(names[key], lines, key), number) for number, (key, lines) in enumerate(known.items()) if lines
        ]

    lengths = lines_of({"answer_tokens": "tokens of an answer"})
    shares = lines_of({"same_reward": "prompts whose answers are worth the same", "cut_off": "answers cut off"})
    return [
        line_chart(lines, "step", label, described=f"{label} by step", from_zero=True)
        for lines, label in ((lengths, "tokens, mean"), (shares, "share"))
        if lines
    ]


def _by_step(every: Sequence[tuple[float, float]], holdout: Mapping[int, float], what: str, label: str) -> Markup:
    """Draws a number of each step, its running mean where there are many, and that of holdout records."""
    many = len(every) > _MANY
    lines = [Line(Curve("training", thinned(every, 400)), 0, faint=many)]
    if many:
        lines.append(Line(Curve("training, running mean", thinned(smoothed(every), 200)), 0))
    if holdout:
        points = thinned([(float(step), value) for step, value in sorted(holdout.items())], 100)
        lines.append(Line(Curve("holdout", points), 1, marked=True))
    last = f"from {every[0][1]:.4f} to {every[-1][1]:.4f}" if every else ""
    described = f"The {what} of {len(every)} steps, {last}"
    return line_chart(lines, "step", label, described=described, from_zero=all(y >= 0 for _, y in every))


def rate_chart(steps: Sequence[Mapping[str, Any]]) -> Markup:
    """Draws the learning rate of each step."""
    line = Line(curve_of("learning rate", steps, "learning_rate", 200), 2)
    described = f"The learning rate of {len(steps)} steps"
    return line_chart([line], "step", "learning rate", described=described, from_zero=True)


def plugin_chart(chart: ReportChart, title: str) -> Markup:
    """Draws the curves that a plugin adds to a report."""
    lines = [
        Line(Curve(name, thinned(points, 400)), number) for number, (name, points) in enumerate(chart.curves.items())
    ]
    described = f"{title}: {chart.y_label or 'curves'} by {chart.x_label}"
    return line_chart(lines, chart.x_label, chart.y_label, described=described)


_BARS = {
    "base": ("base model, its own vocabulary", 3),
    "before": ("new vocabulary, before training", 1),
    "after": ("new vocabulary, after training", 0),
}


def bits_per_byte_bars(metrics: Mapping[str, Measurement]) -> Markup:
    """Draws the holdout bits per byte at each moment at which a run measured them.

    Args:
        metrics: "base", "before" and "after", as the manifest has them.
    """
    known = {when: facts.bits_per_byte for when in _BARS if (facts := metrics.get(when)) is not None}
    bars = [
        Bar(_BARS[when][0], value or 0.0, "-" if value is None else f"{value:.3f}", _BARS[when][1])
        for when, value in known.items()
    ]
    return bar_chart(bars, described="Holdout bits per byte; less is better")


def length_bars(figures: LengthFigures) -> Markup:
    """Draws how many examples have which length."""
    bars = [
        Bar(f"{low:,} to {high:,} tokens" if high > low else f"{low:,} tokens", count, f"{count:,}", 5)
        for low, high, count in figures.counts
    ]
    return bar_chart(bars, described="How many examples have which length in tokens")
