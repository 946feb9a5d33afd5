"""Distillation: the model learns a teacher's distribution over next tokens, and the tokens themselves.

Hinton et al., 2015 (https://arxiv.org/abs/1503.02531). How the two distributions differ at a token is the generalized
Jensen-Shannon divergence of GKD (Agarwal et al., 2023, https://arxiv.org/abs/2306.13649, equation 1), as TRL's
`GKDTrainer` computes it: KL(teacher || model) where `beta` is 0, KL(model || teacher) where it is 1, and between them
`beta` KL(teacher || mixture) + `1 - beta` KL(model || mixture), of the mixture of `beta` parts of the teacher and
`1 - beta` of the model. As there, the temperature divides logits and nothing is multiplied by its square.

Of the teacher its likeliest tokens are known. The probability that each distribution leaves to all other tokens is one
bucket more, so that both remain distributions: taking the `top_k` alone, or renormalizing them, teaches a model to be
surer than its teacher (Anshumann et al., 2025, https://arxiv.org/abs/2503.16870, which calls the bucket a ghost token).
TRL does the same with `loss_add_tail`. The divergence over buckets is that over the vocabulary, or less.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores
from torch.nn.functional import kl_div

from graftkit_objectives.config import DistillConfig

__all__ = ["Distill"]

_MOST_OF_ALL = -1e-7
"""The most that the log of the candidates' probability may be, so that the others' is not zero; TRL's number."""


class Distill:
    """Brings the model's distribution over next tokens near a teacher's."""

    def __init__(self, config: DistillConfig) -> None:
        self._config = config

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the sum over each example's tokens, in nats, `[examples]`."""
        alpha, loss = self._config.alpha, torch.zeros_like(scores.logps)
        if alpha > 0:
            loss = loss + alpha * self._divergence(scores)
        if alpha < 1:
            loss = loss - (1 - alpha) * scores.logps
        return scores.summed(loss).sum(1)

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns both parts, and at how many tokens the model finds the teacher's likeliest token likeliest of its."""
        model, teacher = _given(scores)
        agrees = model.argmax(1) == teacher.argmax(1)
        return {
            "divergence": scores.summed(self._divergence(scores)).sum(1),
            "nll": -scores.sums().sum(1),
            "agreement": scores.summed(agrees.float()).sum(1),
        }

    def _divergence(self, scores: Scores) -> torch.Tensor:
        """Returns the divergence of both distributions at each token, in nats, `[tokens]`."""
        model, teacher = (_with_rest(logps) for logps in _given(scores))
        beta = self._config.beta
        if beta == 0:
            return _kl(teacher, model)
        if beta == 1:
            return _kl(model, teacher)
        share = torch.tensor(beta, dtype=model.dtype, device=model.device)
        mixture = torch.logaddexp(model + torch.log1p(-share), teacher + torch.log(share))
        return beta * _kl(teacher, mixture) + (1 - beta) * _kl(model, mixture)


def _given(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the candidates' log-probabilities, the model's and the teacher's, `[tokens, top_k]`."""
    if scores.candidates is None or scores.teacher is None:
        raise ValueError("there are no scores of a teacher")
    return scores.candidates, scores.teacher


def _with_rest(logps: torch.Tensor) -> torch.Tensor:
    """Adds the log-probability of all other tokens together, `[tokens, top_k + 1]`."""
    together = torch.logsumexp(logps, 1, keepdim=True).clamp(max=_MOST_OF_ALL)
    return torch.cat([logps, torch.log(-torch.expm1(together))], 1)


def _kl(of: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Returns KL(of || by) of distributions that are given as logarithms, `[tokens]`."""
    return kl_div(by, of, reduction="none", log_target=True).sum(1)
