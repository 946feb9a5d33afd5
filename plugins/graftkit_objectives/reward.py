"""A reward model: one score of a conversation, higher for the answer that is preferred.

The likelihood of pairs by Bradley and Terry, as in InstructGPT (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155):
`-log sigmoid(reward(chosen) - reward(rejected) - margin)`, with the margin of Llama 2 (Touvron et al., 2023,
https://arxiv.org/abs/2307.09288), the same for all pairs. `center` adds the squared sum of both rewards (Eisenstein et
al., 2023, https://arxiv.org/abs/2312.09244).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import SequenceScores
from torch.nn.functional import logsigmoid

from graftkit_objectives.config import RewardConfig
from graftkit_objectives.pairs import reward_metrics

__all__ = ["Reward"]


class Reward:
    """Gives chosen answers a higher reward than rejected ones."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the loss of each pair, `[examples]`."""
        chosen, rejected = scores.values[:, :, 0].unbind(1)
        compared = -logsigmoid(chosen - rejected - self._config.margin)
        return compared + self._config.center * (chosen + rejected).square() if self._config.center else compared

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns the pairs' rewards, whether they are in order, and by how much."""
        return reward_metrics(scores.values[:, :, 0])
