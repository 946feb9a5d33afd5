"""Direct preference optimization, and its variants.

Rafailov et al., 2023 (https://arxiv.org/abs/2305.18290): an answer's reward is `beta` times the log-probability that it
has gained over the model at the start; the loss is `-log sigmoid` of the difference of the rewards of the chosen and
the rejected answer.

- `label_smoothing`: conservative DPO (Mitchell, 2023, https://ericmitchell.ai/cdpo.pdf), which takes a share of the
  pairs to be in the wrong order;
- `robust`: the same share, its effect on the loss taken out (Chowdhury et al., 2024, https://arxiv.org/abs/2403.00409);
- `ipo`: the squared distance of the difference per token from `1 / (2 beta)` (Azar et al., 2023,
  https://arxiv.org/abs/2310.12036), answers' sums divided by their lengths;
- `hinge`: SLiC's (Zhao et al., 2023, https://arxiv.org/abs/2305.10425);
- `nll_weight`: the likelihood of the chosen answer besides, as in Llama 3 and iterative reasoning preference
  optimization (Pang et al., 2024, https://arxiv.org/abs/2404.19733).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores
from torch.nn.functional import logsigmoid, relu

from graftkit_objectives.config import DpoConfig
from graftkit_objectives.pairs import chosen_nll, reward_metrics

__all__ = ["Dpo"]


class Dpo:
    """Puts chosen answers before rejected ones, compared with the model as training starts."""

    def __init__(self, config: DpoConfig) -> None:
        self._config = config

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the loss of each pair, `[examples]`."""
        compared = self._compared(scores)
        return compared + self._config.nll_weight * chosen_nll(scores) if self._config.nll_weight else compared

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns the pairs' rewards, whether they are in order, and by how much."""
        return reward_metrics(self._config.beta * self._gained(scores))

    def _compared(self, scores: Scores) -> torch.Tensor:
        beta, share = self._config.beta, self._config.label_smoothing
        gained = self._gained(scores)
        if self._config.loss == "ipo":
            chosen, rejected = (gained / scores.counts()).unbind(1)
            return (chosen - rejected - 1 / (2 * beta)).square()
        chosen, rejected = gained.unbind(1)
        ahead = beta * (chosen - rejected)
        if self._config.loss == "hinge":
            return relu(1 - ahead)
        right, wrong = -logsigmoid(ahead), -logsigmoid(-ahead)
        if self._config.loss == "robust":
            return ((1 - share) * right - share * wrong) / (1 - 2 * share)
        return (1 - share) * right + share * wrong

    def _gained(self, scores: Scores) -> torch.Tensor:
        """Returns by how much each answer is likelier than at the start, in nats, `[examples, 2]`."""
        return scores.sums() - scores.reference_sums()
