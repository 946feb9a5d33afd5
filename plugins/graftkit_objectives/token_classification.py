"""Token classification: a tag of each word of a text, such as whether it is of a name, or its part of speech.

The cross-entropy of the scores that a head gives the first token of each word, one a tag, as transformers'
`*ForTokenClassification` classes minimize it where all other tokens have the label -100.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import TokenScores
from torch.nn.functional import cross_entropy, one_hot

from graftkit_objectives.config import TokenClassificationConfig
from graftkit_objectives.entities import are_chunks, entities_in, precision_recall_f1
from graftkit_objectives.f1 import macro_f1

__all__ = ["TokenClassification"]


class TokenClassification:
    """Makes each word's own tag the likeliest."""

    def __init__(self, config: TokenClassificationConfig) -> None:
        pass

    def losses(self, scores: TokenScores) -> torch.Tensor:
        """Returns the negative log-likelihood of each text's tags, in nats, `[examples]`."""
        return scores.summed(cross_entropy(scores.values, scores.tags, reduction="none"))

    def metrics(self, scores: TokenScores) -> Mapping[str, torch.Tensor]:
        """Returns how many words of each text have the highest score at their own tag."""
        return {"accuracy": scores.summed((scores.values.argmax(1) == scores.tags).float())}

    def overall(self, scores: TokenScores) -> Mapping[str, float]:
        """Returns precision, recall and F1 of whole entities; of other tags the mean of their F1."""
        predicted = scores.values.argmax(1)
        if not are_chunks(scores.labels):
            true, found = (one_hot(numbers, scores.values.shape[1]).bool() for numbers in (scores.tags, predicted))
            return {"macro_f1": macro_f1(true, found)}
        counts = scores.example.bincount(minlength=scores.examples).tolist()
        sides = [
            [entities_in([scores.labels[number] for number in row.tolist()]) for row in torch.split(numbers, counts)]
            for numbers in (scores.tags, predicted)
        ]
        return precision_recall_f1(*sides)
