"""F1: the harmonic mean of precision and recall, over all records together."""

from __future__ import annotations

import math

import torch

__all__ = ["macro_f1", "micro_f1"]


def macro_f1(true: torch.Tensor, told: torch.Tensor) -> float:
    """Returns the mean of the labels' F1, of those that a record has or is told to have; NaN where there is none.

    Args:
        true: Which labels each record has, `[records, labels]`, bool.
        told: Which it is told to have, likewise.

    Example:
        >>> true, told = torch.tensor([[True, False], [False, True]]), torch.tensor([[True, False], [True, False]])
        >>> round(macro_f1(true, told), 4)
        0.3333
    """
    both, either = (true & told).sum(0).double(), (true.sum(0) + told.sum(0)).double()
    return float((2 * both[either > 0] / either[either > 0]).mean()) if bool(either.any()) else math.nan


def micro_f1(true: torch.Tensor, told: torch.Tensor) -> float:
    """Returns the F1 of all labels of all records counted together; NaN where there is none.

    Args:
        true: Which labels each record has, `[records, labels]`, bool.
        told: Which it is told to have, likewise.
    """
    either = int(true.sum() + told.sum())
    return 2 * int((true & told).sum()) / either if either else math.nan
