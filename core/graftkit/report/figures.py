"""Draws a run's figures as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

__all__ = ["loss_curve"]


def loss_curve(steps: Sequence[int], losses: Sequence[float], rates: Sequence[float]) -> str:
    """Draws the loss of each step, and the learning rate below it.

    Args:
        steps: The steps' numbers.
        losses: Nats of a supervised token.
        rates: Learning rates.

    Returns:
        An `<svg>` element.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "graftkit", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot(steps, losses, color="#1f5fa8", linewidth=1.5)
        above.set_ylabel("loss (nats a token)")
        above.set_ylim(bottom=0)
        below.plot(steps, rates, color="#888888", linewidth=1)
        below.set_ylabel("rate")
        below.set_xlabel("step")
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
