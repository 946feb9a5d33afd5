"""How the learning rate rises and falls."""

from __future__ import annotations

from math import cos, pi
from typing import Literal

from graftkit.recipe.schema import TrainingSection

__all__ = ["Schedule", "learning_rate", "rate_of_step", "warmup_steps"]

Schedule = Literal["cosine", "linear", "constant", "wsd"]


def warmup_steps(steps: int, share: float, said: int | None = None) -> int:
    """Returns how many of the steps the rate rises in.

    Args:
        steps: How many there are.
        share: The share of them that it does: one step at least, unless the share is 0.
        said: How many it is to be, instead of a share.
    """
    if said is not None:
        return min(steps, said)
    return min(steps, max(1, round(steps * share))) if share else 0


def rate_of_step(options: TrainingSection, step: int, steps: int, peak: float) -> float:
    """Returns the rate of one step on a recipe's schedule.

    Args:
        options: The recipe's training section.
        step: The step's number, from 1.
        steps: How many there are.
        peak: The highest rate.
    """
    return learning_rate(
        step,
        steps,
        peak=peak,
        warmup=warmup_steps(steps, options.warmup, options.warmup_steps),
        schedule=options.schedule,
        min_lr_ratio=options.min_lr_ratio,
        decay=options.decay,
    )


def learning_rate(
    step: int,
    steps: int,
    *,
    peak: float,
    warmup: int,
    schedule: Schedule,
    min_lr_ratio: float = 0.0,
    decay: float = 0.1,
) -> float:
    """Returns the rate of one step.

    It rises in a straight line over the warm-up, reaching `peak` in its last step, and then falls nearly to its end in
    the last step of all: along half a cosine (Loshchilov & Hutter, SGDR, 2016) or a straight line, or not at all; or in
    a straight line over the last steps alone (Hu et al., MiniCPM, 2024).

    Args:
        step: The step's number, from 1.
        steps: How many there are.
        peak: The highest rate.
        warmup: How many steps it rises in.
        schedule: How it falls.
        min_lr_ratio: The share of `peak` that it falls to, as `min_lr_rate` of transformers' `cosine_with_min_lr`.
        decay: The share of all steps that it falls in with `wsd`: one at least, none of the warm-up's.
    """
    if step <= warmup:
        return peak * (step / warmup)
    if schedule == "constant":
        return peak
    falling = max(1, steps - warmup)
    if schedule == "wsd":
        falling = min(falling, max(1, round(steps * decay)))
    done = max(0, step - 1 - (steps - falling)) / falling
    left = (1 + cos(pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * (min_lr_ratio + (1 - min_lr_ratio) * left)
