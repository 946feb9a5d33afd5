"""How the learning rate rises and falls."""

from __future__ import annotations

from math import cos, pi, sqrt

from graftkit.recipe.schema.training import DecayType, Schedule, TrainingSection

__all__ = [
    "FALLS_BY_STEPS_TAKEN",
    "falling_steps",
    "learning_rate",
    "rate_of_step",
    "warmup_steps",
]

FALLS_BY_STEPS_TAKEN: frozenset[Schedule] = frozenset({"constant", "inverse_sqrt"})
"""Schedules whose rates after the warm-up depend on the steps taken, and not on how many there are in all."""

_TIMESCALE = 10_000
"""That of `inverse_sqrt` without a warm-up, as in transformers."""


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


def falling_steps(steps: int, warmup: int, schedule: Schedule, decay: float) -> int:
    """Returns how many steps, the last ones, the rate falls in; the first of them still has the highest rate.

    Args:
        steps: How many there are.
        warmup: How many of them the rate rises in.
        schedule: How it falls.
        decay: The share of all steps that it falls in with `wsd`: one at least, none of the warm-up's.
    """
    falling = max(1, steps - warmup)
    return min(falling, max(1, round(steps * decay))) if schedule == "wsd" else falling


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
        decay_type=options.decay_type,
        cycles=options.cycles,
        power=options.power,
        timescale=options.timescale,
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
    decay_type: DecayType = "linear",
    cycles: int = 2,
    power: float = 1.0,
    timescale: int | None = None,
) -> float:
    """Returns the rate of one step.

    It rises in a straight line over the warm-up, reaching `peak` in its last step, and then falls nearly to its end in
    the last step of all, each as in transformers: along half a cosine, or several (Loshchilov & Hutter, SGDR, 2016), a
    straight line, or a power of it; over the last steps alone (Hu et al., MiniCPM, 2024); by the square root of the
    steps since the warm-up (Vaswani et al., 2017; Zhai et al., 2021), which has no end; or not at all.

    Args:
        step: The step's number, from 1.
        steps: How many there are.
        peak: The highest rate.
        warmup: How many steps it rises in.
        schedule: How it falls.
        min_lr_ratio: The share of `peak` that it falls to, as `min_lr_rate` of transformers' `cosine_with_min_lr`.
        decay: The share of all steps that it falls in with `wsd`: one at least, none of the warm-up's.
        decay_type: The curve that it falls along with `wsd`.
        cycles: How many cosines there are with `cosine_with_restarts`.
        power: The power of what is left of the steps, with `polynomial`.
        timescale: In how many steps the rate of `inverse_sqrt` falls to `1 / sqrt(2)` of the highest; the warm-up's
            number when left out.
    """
    if step <= warmup:
        return peak * (step / warmup)
    if schedule == "constant":
        return peak
    if schedule == "inverse_sqrt":
        scale = timescale or warmup or _TIMESCALE
        return peak / sqrt((step - 1 - warmup + scale) / scale)
    falling = falling_steps(steps, warmup, schedule, decay)
    done = max(0, step - 1 - (steps - falling)) / falling
    if schedule == "cosine_with_restarts":
        left = _half_cosine(cycles * done % 1.0)
    elif schedule == "polynomial":
        left = (1 - done) ** power
    elif schedule == "cosine" or (schedule == "wsd" and decay_type == "cosine"):
        left = _half_cosine(done)
    elif schedule == "wsd" and decay_type == "1-sqrt":
        left = 1 - sqrt(done)
    else:
        left = 1 - done
    return peak * (min_lr_ratio + (1 - min_lr_ratio) * left)


def _half_cosine(done: float) -> float:
    return (1 + cos(pi * done)) / 2
