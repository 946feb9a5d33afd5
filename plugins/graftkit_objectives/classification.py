"""Classification: which of a few labels a text has.

The cross-entropy of the scores that a head gives a text, one a label, as transformers' `*ForSequenceClassification`
classes minimize it with `problem_type="single_label_classification"`; with `class_weights` torch's
`cross_entropy(weight=...)`, whose mean core takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import SequenceScores
from graftkit.interfaces.objective import LABEL
from torch.nn.functional import cross_entropy, one_hot

from graftkit_objectives.config import ClassificationConfig
from graftkit_objectives.f1 import macro_f1

__all__ = ["Classification"]


class Classification:
    """Makes each text's own label the likeliest."""

    def __init__(self, config: ClassificationConfig) -> None:
        pass

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the negative log-likelihood of each text's label, in nats, `[examples]`."""
        return cross_entropy(scores.values[:, 0], scores.by_example[LABEL].long(), reduction="none")

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns whether each text's label has the highest score."""
        return {"accuracy": (scores.values[:, 0].argmax(1) == scores.by_example[LABEL]).float()}

    def overall(self, scores: SequenceScores) -> Mapping[str, float]:
        """Returns the mean of the labels' F1, each label counting alike however rare it is."""
        values = scores.values[:, 0]
        labels = (scores.by_example[LABEL].long(), values.argmax(1))
        true, predicted = (one_hot(numbers, values.shape[1]).bool() for numbers in labels)
        return {"macro_f1": macro_f1(true, predicted)}
