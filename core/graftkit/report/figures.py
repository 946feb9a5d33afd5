"""Draws a run's figures as SVG."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graftkit.report.closed_page import without_style_attributes
from graftkit.report.run_manifest import Measurement

__all__ = ["bits_per_byte_bars", "loss_curve"]


def loss_curve(lines: Sequence[Mapping[str, Any]], holdout: Mapping[int, float]) -> str:
    """Draws the loss of each step, the holdout loss beside it where that was measured, and the learning rate below.

    Args:
        lines: What metrics.jsonl says of each step.
        holdout: Holdout losses by the step that they were measured after, in nats of a token in the loss.

    Returns:
        An `<svg>` element.
    """
    steps, losses, rates = ([line[key] for line in lines] for key in ("step", "loss", "learning_rate"))
    with _figure(8, 4) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot(steps, losses, color="#1f5fa8", linewidth=1.5, label="training")
        if holdout:
            above.plot(
                list(holdout), list(holdout.values()), color="#c2803a", marker="o", markersize=4, label="holdout"
            )
            above.legend(frameon=False)
        above.set_ylabel("loss (nats a token)")
        above.set_ylim(bottom=0)
        below.plot(steps, rates, color="#888888", linewidth=1)
        below.set_ylabel("rate")
        below.set_xlabel("step")
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        return _svg(figure)


_BARS = {
    "base": ("base model,\nits own vocabulary", "#888888"),
    "before": ("new vocabulary,\nbefore training", "#c2803a"),
    "after": ("new vocabulary,\nafter training", "#1f5fa8"),
}


def bits_per_byte_bars(metrics: Mapping[str, Measurement]) -> str:
    """Draws the holdout bits per byte at each moment at which a run measured them, as an `<svg>` element.

    Args:
        metrics: "base", "before" and "after", as the manifest has them.
    """
    moments = [when for when in _BARS if when in metrics]
    with _figure(8, 2.2) as figure:
        axes = figure.subplots()
        values = [metrics[when].bits_per_byte or 0.0 for when in moments]
        bars = axes.barh([_BARS[when][0] for when in moments], values, color=[_BARS[when][1] for when in moments])
        axes.bar_label(bars, fmt="%.3f", padding=4)
        axes.invert_yaxis()
        axes.set_xlabel("holdout bits per byte (less is better)")
        axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """Gives an empty figure that is drawn with the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "graftkit", "svg.fonttype": "none"}):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return without_style_attributes(svg[svg.index("<svg") :])
