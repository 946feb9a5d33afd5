"""Multi-label classification: which of a few labels a text has, any number of them.

The binary cross-entropy of each label's score, as transformers' `*ForSequenceClassification` classes minimize it with
`problem_type="multi_label_classification"`: of a text the mean over the labels; with `class_weights` torch's
`binary_cross_entropy_with_logits(pos_weight=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import SequenceScores
from graftkit.interfaces.scores import LABELS
from torch.nn.functional import binary_cross_entropy_with_logits

from graftkit_objectives.config import MultiLabelConfig
from graftkit_objectives.f1 import macro_f1, micro_f1

__all__ = ["MultiLabelClassification"]


class MultiLabelClassification:
    """Makes the labels that a text has likelier than not, and the others less likely."""

    def __init__(self, config: MultiLabelConfig) -> None:
        pass

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the mean over the labels of each text's negative log-likelihood, in nats, `[examples]`."""
        values, weights = scores.values[:, 0], scores.label_weights
        labels = scores.by_example[LABELS].to(values)
        return binary_cross_entropy_with_logits(values, labels, pos_weight=weights, reduction="none").mean(1)

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns whether each text has just those labels whose probability is more than one half."""
        return {"subset_accuracy": (_predicted(scores) == scores.by_example[LABELS].bool()).all(1).float()}

    def kept(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns which labels each text has, and which it is predicted to have, `[examples, labels]` each."""
        return {"true": scores.by_example[LABELS], "predicted": _predicted(scores).to(torch.uint8)}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns the F1 of all labels counted together, and the mean of the labels' own."""
        true, predicted = kept["true"], kept["predicted"]
        return {"micro_f1": micro_f1(true, predicted), "macro_f1": macro_f1(true, predicted)}


def _predicted(scores: SequenceScores) -> torch.Tensor:
    """Returns which labels each text is predicted to have, `[examples, labels]`."""
    return scores.values[:, 0] > 0
