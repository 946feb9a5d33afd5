"""Vectors of texts whose cosines rank pairs as their numbers do: semantic textual similarity.

`log(1 + sum(exp((cosine of i - cosine of j) / temperature)))` over all pairs i, j of a step of which i has the lower
number: CoSENT (Su, 2022, https://kexue.fm/archives/8847), as sentence-transformers' CoSENTLoss has it with a scale of
1 / temperature. The order of the numbers alone counts. `dimensions` adds the same of the first numbers of each vector,
as its MatryoshkaLoss does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from graftkit import VectorPairs
from graftkit.interfaces.scores import SCORE
from torch.nn.functional import normalize, softplus

from graftkit_objectives.config import SimilarityObjectiveConfig

__all__ = ["Similarity"]


class Similarity:
    """Brings the cosine of each pair above those of pairs with a lower number."""

    def __init__(self, config: SimilarityObjectiveConfig) -> None:
        self._config = config

    def losses(self, pairs: VectorPairs) -> torch.Tensor:
        """Returns what each pair has of the loss, whose mean is the whole, `[examples]`.

        That is its part in the sum, half of each term by the pair with the lower number. The gradient of the mean is
        that of the whole, for which the parts are constants.
        """
        found = self._losses(pairs, pairs.first, pairs.second)
        for width in self._config.dimensions:
            first, second = (normalize(vectors[:, :width], dim=1) for vectors in (pairs.first, pairs.second))
            found = found + self._losses(pairs, first, second)
        return found

    def metrics(self, pairs: VectorPairs) -> Mapping[str, torch.Tensor]:
        """Returns the cosine of each pair."""
        return {"cosine": _cosines(pairs)}

    def kept(self, pairs: VectorPairs) -> Mapping[str, torch.Tensor]:
        """Returns the cosine of each pair, and its number, `[examples]` each."""
        return {"cosine": _cosines(pairs), "number": pairs.by_example[SCORE]}

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns the rank correlation of cosines and numbers (Spearman's); NaN where either are all the same."""
        ranks = torch.stack([_ranks(kept["cosine"]), _ranks(kept["number"])])
        apart = (ranks != ranks[:, :1]).any(1).all()
        return {"spearman": float(torch.corrcoef(ranks)[0, 1]) if apart else math.nan}

    def _losses(self, pairs: VectorPairs, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Returns the parts of the loss of some vectors' cosines; computed of sorted sums, in float64 on the CPU."""
        cosines = ((first * second).sum(1) / self._config.temperature).cpu().double()
        numbers, order = pairs.by_example[SCORE].cpu().sort(stable=True)
        values, none = cosines[order], cosines.new_full((1,), -torch.inf)
        counts = _runs(numbers)
        ends = counts.cumsum(0)
        lower, not_higher = (each.repeat_interleave(counts) for each in (ends - counts, ends))
        if len(counts) < 2:  # no two of the numbers differ
            return (cosines * 0).float().to(first.device)
        # The logarithms of the sums of each pair's terms with lower ones, and with higher ones, in the sorted order.
        below = torch.cat([none, values.logcumsumexp(0)])[lower] - values
        above = torch.cat([(-values).flip(0).logcumsumexp(0).flip(0), none])[not_higher] + values
        total = below[lower > 0].logsumexp(0)
        shares = torch.empty_like(values)
        shares[order] = ((below - total).exp() + (above - total).exp()).detach() / 2
        return (softplus(total) * shares * len(values)).float().to(first.device)


def _cosines(pairs: VectorPairs) -> torch.Tensor:
    return (pairs.first * pairs.second).sum(1)


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Returns the rank of each number; equal ones share the mean of theirs.

    Example:
        >>> _ranks(torch.tensor([0.5, 0.1, 0.5])).tolist()
        [1.5, 0.0, 1.5]
    """
    ordered, order = values.double().sort()
    counts = _runs(ordered)
    ranks = torch.empty_like(ordered)
    ranks[order] = (counts.cumsum(0) - (counts + 1) / 2).repeat_interleave(counts).to(ranks)
    return ranks


def _runs(ordered: torch.Tensor) -> torch.Tensor:
    """Returns how often each different number stands in a sorted row."""
    ends = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)]).nonzero().squeeze(1) + 1
    return ends.diff(prepend=ends.new_zeros(1))
