"""F1: the harmonic mean of precision and recall, over all records together."""

from __future__ import annotations

import math

import torch

__all__ = ["f1_of_counts", "macro_f1", "micro_f1"]


def macro_f1(true: torch.Tensor, predicted: torch.Tensor) -> float:
    """Returns the mean of the labels' F1; NaN where there is none.

    A label that no record has, or is predicted to have, is left out, where scikit-learn's `f1_score(average="macro")`
    of such rows counts it as 0.

    Args:
        true: Which labels each record has, `[records, labels]`, 1 or 0.
        predicted: Which it is predicted to have, likewise.

    Example:
        >>> true, predicted = torch.tensor([[1, 0], [0, 1]]), torch.tensor([[1, 0], [1, 0]])
        >>> round(macro_f1(true, predicted), 4)
        0.3333
    """
    return f1_of_counts((true & predicted).sum(0), true.sum(0), predicted.sum(0))


def f1_of_counts(both: torch.Tensor, true: torch.Tensor, predicted: torch.Tensor) -> float:
    """Returns the same where it is known how often each label is there.

    Args:
        both: How often each label is there and predicted, `[labels]`.
        true: How often it is there, `[labels]`.
        predicted: How often it is predicted, `[labels]`.
    """
    doubled, either = 2 * both.double(), (true + predicted).double()
    return float((doubled[either > 0] / either[either > 0]).mean()) if bool(either.any()) else math.nan


def micro_f1(true: torch.Tensor, predicted: torch.Tensor) -> float:
    """Returns the F1 of all labels of all records counted together; NaN where there is none.

    Args:
        true: Which labels each record has, `[records, labels]`, 1 or 0.
        predicted: Which it is predicted to have, likewise.
    """
    either = int(true.sum() + predicted.sum())
    return 2 * int((true & predicted).sum()) / either if either else math.nan
