"""Regression: a number of a text.

The squared error of the one score that a head gives a text, as transformers' `*ForSequenceClassification` classes
minimize it with `problem_type="regression"` and one label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from graftkit import SequenceScores
from graftkit.interfaces.scores import SCORE

from graftkit_objectives.config import RegressionConfig

__all__ = ["Regression"]


class Regression:
    """Brings each text's score near its number."""

    def __init__(self, config: RegressionConfig) -> None:
        pass

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the squared error of each text, `[examples]`; their mean is the MSE."""
        return _errors(scores).square()

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns the absolute error of each text, whose mean is the MAE."""
        return {"mae": _errors(scores).abs()}

    def kept(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns the score of each text, and its number, `[examples]` each."""
        return {"score": scores.values[:, 0, 0], "number": scores.by_example[SCORE]}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns Pearson's correlation of scores and numbers; NaN where either are all the same."""
        pair = torch.stack([kept["score"], kept["number"]])
        apart = (pair - pair[:, :1]).any(1).all()
        return {"pearson": float(torch.corrcoef(pair)[0, 1]) if apart else math.nan}


def _errors(scores: SequenceScores) -> torch.Tensor:
    values = scores.values[:, 0, 0]
    return values - scores.by_example[SCORE].to(values)
