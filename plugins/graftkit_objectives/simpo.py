"""Simple preference optimization: mean log-probabilities as rewards, and a margin between them.

Meng et al., 2024 (https://arxiv.org/abs/2405.14734): `-log sigmoid(beta (mean log p(chosen) - mean log p(rejected)) -
gamma)`. `nll_weight` adds the likelihood of the chosen answer, as CPO does (Xu et al., 2024,
https://arxiv.org/abs/2401.08417).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores
from torch.nn.functional import logsigmoid

from graftkit_objectives.config import SimpoConfig
from graftkit_objectives.pairs import chosen_nll, reward_metrics

__all__ = ["Simpo"]


class Simpo:
    """Puts chosen answers before rejected ones by a margin, without another model."""

    def __init__(self, config: SimpoConfig) -> None:
        self._config = config

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the loss of each pair, `[examples]`."""
        chosen, rejected = (self._config.beta * scores.means()).unbind(1)
        compared = -logsigmoid(chosen - rejected - self._config.gamma)
        return compared + self._config.nll_weight * chosen_nll(scores) if self._config.nll_weight else compared

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns the pairs' rewards, whether they are in order, and by how much."""
        return reward_metrics(self._config.beta * scores.means())
