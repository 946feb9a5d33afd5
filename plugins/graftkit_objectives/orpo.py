"""Odds ratio preference optimization: the likelihood of chosen answers and their odds against the rejected ones.

Hong et al., 2024 (https://arxiv.org/abs/2403.07691): `-log p(chosen) - beta log sigmoid(log odds(chosen) - log
odds(rejected))`, where `p` is the geometric mean of an answer's tokens' probabilities and `odds = p / (1 - p)`. As in
the paper, the likelihood is that of the answer; TRL's is that of prompt and answer together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores
from torch.nn.functional import logsigmoid

from graftkit_objectives.config import OrpoConfig
from graftkit_objectives.pairs import chosen_nll, reward_metrics

__all__ = ["Orpo"]

_LARGEST = -1e-7
"""The largest mean log-probability that odds are made of; at 0 they are infinite."""


class Orpo:
    """Learns chosen answers and keeps away from rejected ones, without another model."""

    def __init__(self, config: OrpoConfig) -> None:
        self._beta = config.beta

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the loss of each pair, `[examples]`."""
        chosen, rejected = _log_odds(scores).unbind(1)
        return chosen_nll(scores) - self._beta * logsigmoid(chosen - rejected)

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns the pairs' rewards, mean log-probabilities times beta, and the log of the odds ratio."""
        chosen, rejected = _log_odds(scores).unbind(1)
        return {**reward_metrics(self._beta * scores.means()), "log_odds_ratio": chosen - rejected}


def _log_odds(scores: Scores) -> torch.Tensor:
    """Returns the log of the odds of each answer, `[examples, 2]`."""
    means = scores.means().clamp(max=_LARGEST)
    return means - torch.log(-torch.expm1(means))
