"""How the learning rate rises and falls."""

from __future__ import annotations

from math import cos, pi
from typing import Literal

__all__ = ["Schedule", "learning_rate", "warmup_steps"]

Schedule = Literal["cosine", "linear", "constant"]


def warmup_steps(steps: int, share: float) -> int:
    """Returns how many of the steps the rate rises in: at least one unless the share is 0."""
    return min(steps, max(1, round(steps * share))) if share else 0


def learning_rate(step: int, steps: int, *, peak: float, warmup: int, schedule: Schedule) -> float:
    """Returns the rate of one step.

    It rises in a straight line over the warm-up, reaching `peak` in its last step, and then falls to nearly zero in
    the last step of all: along half a cosine (Loshchilov & Hutter, SGDR, 2016) or a straight line, or not at all.

    Args:
        step: The step's number, from 1.
        steps: How many there are.
        peak: The highest rate.
        warmup: How many steps it rises in.
        schedule: How it falls.
    """
    if step <= warmup:
        return peak * (step / warmup)
    done = (step - warmup - 1) / max(1, steps - warmup)
    if schedule == "cosine":
        return peak * (1 + cos(pi * done)) / 2
    return peak * (1 - done) if schedule == "linear" else peak
