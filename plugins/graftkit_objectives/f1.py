"""F1: the harmonic mean of precision and recall, over all records together."""

from __future__ import annotations

import math

import torch

__all__ = ["macro_f1", "micro_f1"]


def macro_f1(true: torch.Tensor, predicted: torch.Tensor) -> float:
    """Returns the mean of the labels' F1; NaN where there is none.

    A label that no record has, or is predicted to have, is left out, where scikit-learn's `f1_score(average="macro")`
    of such rows counts it as 0.

    Args:
        true: Which labels each record has, `[records, labels]`, bool.
        predicted: Which it is predicted to have, likewise.

    Example:
        >>> true, predicted = torch.tensor([[True, False], [False, True]]), torch.tensor([[True, False], [True, False]])
        >>> round(macro_f1(true, predicted), 4)
        0.3333
    """
    both, either = (true & predicted).sum(0).double(), (true.sum(0) + predicted.sum(0)).double()
    return float((2 * both[either > 0] / either[either > 0]).mean()) if bool(either.any()) else math.nan


def micro_f1(true: torch.Tensor, predicted: torch.Tensor) -> float:
    """Returns the F1 of all labels of all records counted together; NaN where there is none.

    Args:
        true: Which labels each record has, `[records, labels]`, bool.
        predicted: Which it is predicted to have, likewise.
    """
    either = int(true.sum() + predicted.sum())
    return 2 * int((true & predicted).sum()) / either if either else math.nan
