"""Classification: which of a few labels a text has.

The cross-entropy of the scores that a head gives a text, one a label, as transformers' `*ForSequenceClassification`
classes minimize it with `problem_type="single_label_classification"`; with `class_weights` torch's
`cross_entropy(weight=...)`, whose mean core takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import SequenceScores
from graftkit.interfaces.scores import LABEL
from torch.nn.functional import cross_entropy, one_hot

from graftkit_objectives.config import ClassificationConfig
from graftkit_objectives.f1 import macro_f1

__all__ = ["Classification"]


class Classification:
    """Makes each text's own label the likeliest."""

    def __init__(self, config: ClassificationConfig) -> None:
        pass

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the negative log-likelihood of each text's label, in nats, times its weight, `[examples]`."""
        labels = scores.by_example[LABEL].long()
        return cross_entropy(scores.values[:, 0], labels, weight=scores.label_weights, reduction="none")

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns whether each text's label has the highest score."""
        return {"accuracy": (scores.values[:, 0].argmax(1) == scores.by_example[LABEL]).float()}

    def kept(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns the number of each text's label, and of the one with the highest score, `[examples]` each."""
        return {"true": scores.by_example[LABEL], "predicted": scores.values[:, 0].argmax(1)}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns the mean of the labels' F1, each label counting alike however rare it is."""
        labels = int(torch.stack([*kept.values()]).max()) + 1
        return {"macro_f1": macro_f1(*(one_hot(kept[name], labels) for name in ("true", "predicted")))}
