"""Group relative policy optimization: the model's own answers, each compared with the others to the same prompt.

Shao et al., 2024 (https://arxiv.org/abs/2402.03300): an answer's advantage is its reward minus the mean of its group's,
divided by their standard deviation; the gradient of each token's log-probability is multiplied with it. Answers are
sampled anew for each step, from the model as it is: so the ratio of the policies is 1, nothing is clipped, and there is
no second model.

With `num_iterations` above 1 further steps learn from the same answers. A token then costs minus the smaller one of its
ratio times the advantage and of the same with the ratio clipped to 1 - `epsilon` ... 1 + `epsilon_high`, as in PPO
(Schulman et al., 2017, https://arxiv.org/abs/1707.06347). `delta` bounds the first ratio, too (INTELLECT-2, 2025,
https://arxiv.org/abs/2505.07291). With `importance_sampling_level: sequence` all tokens of an answer have the same
ratio, the geometric mean of theirs (GSPO, Zheng et al., 2025, https://arxiv.org/abs/2507.18071).

How tokens are summed up, by `loss`, is what the literature differs in:

- `dapo`: every token of the step counts alike (Yu et al., 2025, https://arxiv.org/abs/2503.14476);
- `grpo`: every answer counts alike, whatever its length;
- `dr_grpo`: the sum over an answer's tokens, divided by the most that it may have (Liu et al., 2025,
  https://arxiv.org/abs/2503.20783). Its paper leaves out the division by the standard deviation, too:
  `scale_rewards: none`.

With a `beta` above 0 each token costs that times an estimate of the divergence from the model as training starts,
summed up likewise: exp(r - p) - (r - p) - 1 of its log-probabilities by that model, r, and by this one, p (Schulman's
k3, http://joschu.net/blog/kl-approx.html). It is multiplied by the ratio of the policies, which has a gradient even
where it is 1: so the gradient is that of the divergence itself, (p - r) times that of p (DeepSeek-V3.2,
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
        """Returns the sum of what each answer's tokens cost, divided as `loss` says, `[examples]`."""
        by_example, ratio = scores.by_example, self._ratio(scores)
        advantage = by_example["advantage"][scores.sequence]
        if scores.old is None:  # the gradient of the ratio, which is 1, is that of the log-probability
            by_token = -advantage * scores.logps
        else:
            bounded = ratio if self._config.delta is None else ratio.clamp(max=self._config.delta)
            by_token = -torch.min(bounded * advantage, ratio.clamp(*self._clip) * advantage)
        if self._config.beta:
            by_token = by_token + self._config.beta * _divergence(scores) * ratio
        summed = scores.summed(by_token).squeeze(1)
        divisor: torch.Tensor | float
        if self._config.loss == "grpo":
            divisor = scores.counts().squeeze(1)
        elif self._config.loss == "dapo":
            divisor = by_example["mean_tokens"]
        else:
            divisor = self._config.max_new_tokens
        return summed / divisor

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns means over each answer's tokens: divergence and share clipped, where there is such a thing.

        Core tells what answers are worth.
        """
        counts, found = scores.counts(), dict[str, torch.Tensor]()
        if self._config.beta:
            found["kl"] = _divergence(scores)
        if scores.old is not None:
            ratio, advantage = self._ratio(scores), scores.by_example["advantage"][scores.sequence]
            least, most = self._clip
            clipped = ((ratio < least) & (advantage < 0)) | ((ratio > most) & (advantage > 0))
            found["clip_ratio"] = clipped.float()
        return {name: (scores.summed(by_token) / counts).squeeze(1) for name, by_token in found.items()}

    @property
    def _clip(self) -> tuple[float, float]:
        """The least and the largest ratio by which is learnt."""
        high = self._config.epsilon if self._config.epsilon_high is None else self._config.epsilon_high
        return 1 - self._config.epsilon, 1 + high

    def _ratio(self, scores: Scores) -> torch.Tensor:
        """Returns each token's probability divided by that by the model that sampled it, `[tokens]`."""
        ahead = scores.logps - (scores.logps.detach() if scores.old is None else scores.old)
        if self._config.importance_sampling_level == "sequence":
            ahead = (scores.summed(ahead) / scores.counts()).squeeze(1)[scores.sequence]
        return ahead.exp()


def _divergence(scores: Scores) -> torch.Tensor:
    """Returns the estimated divergence from the model at the start by each token, `[tokens]`."""
    assert scores.reference is not None, "the config says compares_with_start"
    ahead = scores.reference - scores.logps
    return ahead.exp() - ahead - 1
