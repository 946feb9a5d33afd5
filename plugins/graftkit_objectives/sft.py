"""Fine-tuning: the negative log-likelihood of what is to be said."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores

from graftkit_objectives.config import SftConfig

__all__ = ["Sft"]


class Sft:
    """Sums the negative log-likelihood of an example's tokens in the loss, each with its weight.

    Core takes the mean over a step's tokens, in one pass, and does not ask this class: see
    `graftkit.interfaces.objective_config.Minimizes`.
    """

    def __init__(self, config: SftConfig) -> None:
        pass

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the negative log-likelihood of each example, in nats, `[examples]`."""
        return -scores.sums().sum(1)

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Tells nothing besides."""
        return {}
