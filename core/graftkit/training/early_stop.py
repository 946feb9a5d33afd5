"""Which evaluated step was best, and when waiting for a better one ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

__all__ = ["best_step", "evaluations_without_gain"]


def best_step(losses: Mapping[int, float]) -> int | None:
    """Returns the step with the lowest holdout loss, the first of several; None where none was evaluated.

    Example:
        >>> best_step({10: 2.0, 20: 1.5, 30: 1.6})
        20
    """
    return min(losses, key=lambda step: (losses[step], step), default=None)


def evaluations_without_gain(losses: Iterable[float], min_delta: float) -> int:
    """Returns how many evaluations have passed since one that was a gain, as Keras and Lightning count them.

    A loss that falls slowly is a gain once it has fallen by more than `min_delta` since the last one. transformers'
    `EarlyStoppingCallback` compares each with the lowest of all before, and would stop there.

    Args:
        losses: The holdout losses in their order.
        min_delta: By how much a loss is lower than that of the last gain where it is one itself.

    Example:
        >>> evaluations_without_gain([2.0, 1.5, 1.49, 1.6], min_delta=0.1)
        2
        >>> evaluations_without_gain([2.0, 1.94, 1.88], min_delta=0.1)
        0
    """
    lowest, waited = math.inf, 0
    for loss in losses:
        lowest, waited = (loss, 0) if loss < lowest - min_delta else (lowest, waited + 1)
    return waited
