"""How the learning rate rises and falls."""

from __future__ import annotations

from math import cos, pi
from typing import Literal

__all__ = ["Schedule", "learning_rate", "warmup_steps"]

Schedule = Literal["cosine", "linear", "constant"]


def warmup_steps(steps: int, warmup: float) -> int:
    """Returns how many of the steps the rate rises in.

    Args:
        steps: How many there are.
        warmup: Their share, up to 1, by which it is one step at least unless the share is 0; or, above 1, the number.
    """
    return min(steps, max(1, round(steps * warmup if warmup <= 1 else warmup))) if warmup else 0


def learning_rate(
    step: int, steps: int, *, peak: float, warmup: int, schedule: Schedule, min_rate: float = 0.0
) -> float:
    """Returns the rate of one step.

    It rises in a straight line over the warm-up, reaching `peak` in its last step, and then falls nearly to its end in
    the last step of all: along half a cosine (Loshchilov & Hutter, SGDR, 2016) or a straight line, or not at all.

    Args:
        step: The step's number, from 1.
        steps: How many there are.
        peak: The highest rate.
        warmup: How many steps it rises in.
        schedule: How it falls.
        min_rate: The share of `peak` that it falls to, as `min_lr_rate` of transformers' `cosine_with_min_lr`.
    """
    if step <= warmup:
        return peak * (step / warmup)
    done = (step - warmup - 1) / max(1, steps - warmup)
    if schedule == "constant":
        return peak
    left = (1 + cos(pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * (min_rate + (1 - min_rate) * left)
