"""Masked language modelling: the negative log-likelihood of tokens that are masked, given all the others.

Devlin et al., 2018 (https://arxiv.org/abs/1810.04805): of a text's tokens a share is drawn; four fifths of these become
the mask token, a tenth another token, a tenth stay. Core draws them, anew in each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from graftkit import Scores

from graftkit_objectives.config import MaskedLmConfig

__all__ = ["MaskedLm"]


class MaskedLm:
    """Sums the negative log-likelihood of an example's masked tokens.

    Core takes the mean over a step's masked tokens, in one pass, and does not ask this class: see
    `graftkit.interfaces.objective_config.Minimizes`.
    """

    def __init__(self, config: MaskedLmConfig) -> None:
        pass

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the negative log-likelihood of each example, in nats, `[examples]`."""
        return -scores.sums().sum(1)

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Tells nothing besides."""
        return {}
