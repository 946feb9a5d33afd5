"""Token classification: a tag of each word of a text, such as whether it is of a name, or its part of speech.

The cross-entropy of the scores that a head gives the first token of each word, one a tag, as transformers'
`*ForTokenClassification` classes minimize it where all other tokens have the label -100; with `class_weights` torch's
`cross_entropy(weight=...)`, whose mean core takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import TokenScores
from torch.nn.functional import cross_entropy, one_hot

from graftkit_objectives.config import TokenClassificationConfig
from graftkit_objectives.entities import are_chunks, entities_in, precision_recall_f1
from graftkit_objectives.f1 import f1_of_counts

__all__ = ["TokenClassification"]


class TokenClassification:
    """Makes each word's own tag the likeliest."""

    def __init__(self, config: TokenClassificationConfig) -> None:
        pass

    def losses(self, scores: TokenScores) -> torch.Tensor:
        """Returns the negative log-likelihood of each text's tags, in nats, each times its weight, `[examples]`."""
        return scores.summed(cross_entropy(scores.values, scores.tags, weight=scores.label_weights, reduction="none"))

    def metrics(self, scores: TokenScores) -> Mapping[str, torch.Tensor]:
        """Returns how many words of each text have the highest score at their own tag."""
        return {"accuracy": scores.summed((scores.values.argmax(1) == scores.tags).float())}

    def kept(self, scores: TokenScores) -> Mapping[str, torch.Tensor]:
        """Returns how many entities each text has, is predicted to have, and both; of other tags how often each is.

        Returns:
            `entities`, `[examples, 3]`, or `tags`, `[examples, 3, labels]`: both, true, predicted.
        """
        both_sides = scores.tags, scores.values.argmax(1)
        if not are_chunks(scores.labels):
            true, predicted = (one_hot(numbers, len(scores.labels)) for numbers in both_sides)
            return {"tags": torch.stack([scores.summed(each) for each in (true & predicted, true, predicted)], 1)}
        counts = scores.example.bincount(minlength=scores.examples).tolist()
        sides = [
            [entities_in([scores.labels[number] for number in row.tolist()]) for row in torch.split(numbers, counts)]
            for numbers in both_sides
        ]
        pairs = zip(*sides, strict=True)
        return {"entities": torch.tensor([[len(one & other), len(one), len(other)] for one, other in pairs])}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns precision, recall and F1 of whole entities; of other tags the mean of their F1."""
        if "tags" in kept:
            return {"macro_f1": f1_of_counts(*kept["tags"].sum(0))}
        return precision_recall_f1(*kept["entities"].sum(0).tolist())
