"""Sparsemax: like softmax, with zeros."""

from __future__ import annotations

import torch

__all__ = ["sparsemax"]


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """Returns the point of the probability simplex that lies nearest to each row of scores.

    It is `max(score - threshold, 0)` with the threshold that makes it one in sum (Martins & Astudillo, 2016,
    https://arxiv.org/abs/1602.02068). The threshold is found without sorting (Michelot, 1986): take it over all
    scores, drop those below, and again until none is.

    Args:
        scores: `[rows, candidates]`, floating point, at least one candidate.

    Example:
        >>> sparsemax(torch.tensor([[1.0, 0.8, -1.0]])).tolist()  # doctest: +ELLIPSIS
        [[0.6..., 0.4..., 0.0]]
    """
    shifted = scores - scores.amax(1, keepdim=True)  # the largest is in; sums of small numbers are exacter
    inside = torch.ones_like(shifted, dtype=torch.bool)
    while True:
        threshold = (torch.where(inside, shifted, 0.0).sum(1, keepdim=True) - 1) / inside.sum(1, keepdim=True)
        still = inside & (shifted > threshold)
        if torch.equal(still, inside):
            return torch.where(inside, shifted - threshold, 0.0)
        inside = still
