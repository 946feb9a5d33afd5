"""Kahneman-Tversky optimization: answers that are wanted or not, without pairs.

Ethayarajh et al., 2024 (https://arxiv.org/abs/2402.01306): what an answer has gained over the model at the start is
compared with how far the model has moved altogether, which is estimated from answers of other records to the step's
prompts, and has no gradient. A wanted answer's loss is `1 - sigmoid(beta (gained - moved))`, an unwanted one's
`1 - sigmoid(beta (moved - gained))`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores

from graftkit_objectives.config import KtoConfig

__all__ = ["Kto"]


class Kto:
    """Makes wanted answers likelier and unwanted ones less likely."""

    def __init__(self, config: KtoConfig) -> None:
        self._config = config

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the loss of each answer, `[examples]`."""
        gained, moved = _gained(scores), _moved(scores)
        wanted = scores.by_example["wanted"].bool()
        ahead = torch.where(wanted, gained - moved, moved - gained)
        weights = torch.where(wanted, self._config.wanted_weight, self._config.unwanted_weight)
        return weights * (1 - torch.sigmoid(self._config.beta * ahead))

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns the rewards of wanted and of unwanted answers, and how far the model has moved, in nats."""
        rewards = self._config.beta * _gained(scores)
        wanted = scores.by_example["wanted"].bool()
        unknown = torch.full_like(rewards, torch.nan)
        return {
            "reward_wanted": torch.where(wanted, rewards, unknown),
            "reward_unwanted": torch.where(wanted, unknown, rewards),
            "kl": _moved(scores).expand(scores.examples),
        }


def _gained(scores: Scores) -> torch.Tensor:
    """Returns by how much each answer is likelier than at the start, in nats, `[examples]`."""
    return (scores.sums() - scores.reference_sums())[:, 0]


def _moved(scores: Scores) -> torch.Tensor:
    """Returns the estimate of the divergence from the model at the start, in nats, a scalar from 0."""
    return (scores.sums() - scores.reference_sums())[:, 1].mean().detach().clamp(min=0)
