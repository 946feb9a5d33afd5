"""What objectives for pairs of answers tell of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores

__all__ = ["chosen_nll", "reward_metrics"]


def chosen_nll(scores: Scores) -> torch.Tensor:
    """Returns the mean negative log-likelihood of a token of each chosen answer, in nats, `[examples]`."""
    return -scores.means()[:, 0]


def reward_metrics(rewards: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Returns whether each chosen answer is ahead, by how much, and both rewards.

    Args:
        rewards: Of the chosen and the rejected answers, `[examples, 2]`.
    """
    chosen, rejected = rewards.unbind(1)
    return {
        "accuracy": (chosen > rejected).float(),
        "margin": chosen - rejected,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
    }
