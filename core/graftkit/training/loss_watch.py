"""When a run's losses have gone wrong: no number, or diverged by a stated rule."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

__all__ = ["LossWatch"]


class LossWatch:
    """Looks at each step's loss before the step is taken.

    A loss has diverged where the mean of the last `window` steps is more than `factor` times the lowest such mean so
    far, and higher than the first such mean, where the run began. The second keeps noise around a loss near zero, and
    records that are harder than others, from being taken for divergence.

    Args:
        factor: How far the mean may rise above the lowest; None where nothing is taken for divergence.
        window: Over how many steps the mean is taken.

    Attributes:
        good: The last step after which the weights gave losses that nothing speaks against.

    Example:
        >>> watch = LossWatch(factor=2.0, window=1)
        >>> [watch.look(step, loss, 1.0) for step, loss in enumerate((3.0, 1.0, 2.5), 1)]
        ['', '', '']
        >>> watch.look(4, 3.1, 1.0), watch.good
        ('the loss has diverged: 3.1000 in this step, 1.0000 in step 2', 1)
    """

    def __init__(self, factor: float | None, window: int) -> None:
        self.good = 0
        self._factor = factor
        self._losses: deque[float] = deque(maxlen=window)
        self._first: float | None = None
        self._lowest, self._lowest_at = math.inf, 0

    def look(self, step: int, loss: float, gradient_norm: float) -> str:
        """Takes a step's loss into account; returns what is wrong with it, nothing where nothing is.

        Args:
            step: The step's number, from 1.
            loss: Its loss.
            gradient_norm: Its gradient's norm.
        """
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self.good = max(0, step - 2)  # a step's loss is that of the weights after the step before
            return f"the loss is {loss}, the gradient's norm {gradient_norm}"
        self._losses.append(loss)
        window = self._losses.maxlen or 1
        if len(self._losses) < window:
            return ""
        mean = sum(self._losses) / window
        first = self._first = mean if self._first is None else self._first
        if self._factor is not None and mean > self._factor * self._lowest and mean > first:
            self.good = self._lowest_at - 1
            return f"the loss has diverged: {_means(window, mean, self._lowest, self._lowest_at)}"
        if mean < self._lowest:
            self._lowest, self._lowest_at = mean, step
        return ""

    def state(self) -> dict[str, Any]:
        """Returns as JSON what it has seen so far, for another that goes on looking at the same steps."""
        lowest = [self._lowest, self._lowest_at] if self._lowest_at else None
        return {"losses": [*self._losses], "first": self._first, "lowest": lowest, "good": self.good}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what another of the same rule has seen, as its `state` says."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._first, self.good = state["first"], state["good"]
        self._lowest, self._lowest_at = state["lowest"] or (math.inf, 0)


def _means(window: int, mean: float, lowest: float, lowest_at: int) -> str:
    if window == 1:
        return f"{mean:.4f} in this step, {lowest:.4f} in step {lowest_at}"
    return f"{mean:.4f} in the mean of the last {window} steps, {lowest:.4f} in that of the {window} up to {lowest_at}"
