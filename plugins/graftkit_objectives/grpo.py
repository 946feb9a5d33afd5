"""Group relative policy optimization: the model's own answers, each compared with the others to the same prompt.

Shao et al., 2024 (https://arxiv.org/abs/2402.03300): an answer's advantage is its reward minus the mean of its group's,
divided by their standard deviation; the gradient of each token's log-probability is multiplied with it. Answers are
sampled anew for each step, from the model as it is: so the ratio of the policies is 1, nothing is clipped, and there is
no second model.

How tokens are summed up, by `loss`, is what the literature differs in:

- `dapo`: every token of the step counts alike (Yu et al., 2025, https://arxiv.org/abs/2503.14476);
- `grpo`: every answer counts alike, whatever its length;
- `dr_grpo`: the sum over an answer's tokens, divided by the most that it may have (Liu et al., 2025,
  https://arxiv.org/abs/2503.20783). Its paper leaves out the division by the standard deviation, too:
  `scale_rewards: none`.

With a `beta` above 0 each token costs that times an estimate of the divergence from the model as training starts,
summed up likewise: exp(r - p) - (r - p) - 1 of its log-probabilities by that model, r, and by this one, p (Schulman's
k3, http://joschu.net/blog/kl-approx.html). It is multiplied by the ratio of the policies, which is 1 and has a
gradient: so the gradient is that of the divergence itself, (p - r) times that of p (DeepSeek-V3.2,
https://arxiv.org/abs/2512.02556), and what TRL has with `use_bias_correction_kl`, its default.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores

from graftkit_objectives.config import GrpoConfig

__all__ = ["Grpo"]

_LEAST = 1e-4
"""What is added to a standard deviation before it divides, as in TRL."""


class Grpo:
    """Makes answers likelier that are worth more than others to the same prompt."""

    def __init__(self, config: GrpoConfig) -> None:
        self._config = config

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Returns how much more than its group's mean each answer is worth, `[prompts, group_size]`."""
        alike = (rewards == rewards[:, :1]).all(1, keepdim=True)  # what rounding makes of those is no difference
        ahead = (rewards - rewards.mean(1, keepdim=True)).masked_fill(alike, 0.0)
        if self._config.scale_rewards == "none":
            return ahead
        spread = rewards.std() if self._config.scale_rewards == "batch" else rewards.std(1, keepdim=True)
        return ahead / (spread + _LEAST)

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns minus the sum of each answer's log-probabilities, times its advantage, `[examples]`.

        The divergence from the start, where that counts, comes besides.
        """
        by_example = scores.by_example
        summed = -by_example["advantage"] * scores.sums().squeeze(1)
        if self._config.beta:
            ratio = (scores.logps - scores.logps.detach()).exp()
            summed = summed + self._config.beta * scores.summed(_divergence(scores) * ratio).squeeze(1)
        divisor: torch.Tensor | float
        if self._config.loss == "grpo":
            divisor = scores.counts().squeeze(1)
        elif self._config.loss == "dapo":
            divisor = by_example["mean_tokens"]
        else:
            divisor = self._config.max_new_tokens
        return summed / divisor

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns the mean divergence of each answer's tokens, where that counts; core tells what answers are worth."""
        if not self._config.beta:
            return {}
        return {"kl": (scores.summed(_divergence(scores)) / scores.counts()).squeeze(1)}


def _divergence(scores: Scores) -> torch.Tensor:
    """Returns the estimated divergence from the model at the start by each token, `[tokens]`."""
    assert scores.reference is not None, "the config says compares_with_start"
    ahead = scores.reference - scores.logps
    return ahead.exp() - ahead - 1
