"""Sums of the rows of those tokens that stood for a new one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from graftkit import NewRows
from torch.nn import functional

__all__ = ["average_row", "combine_parts", "even_shares", "known_rows"]


def combine_parts(new: NewRows, shares: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Returns the sum of each token's parts, each times its share; for a token without parts the average row.

    Nothing is renormalised: a mean is shorter than its parts, and a model whose new rows are stretched to the usual
    length prefers them to its own.

    Args:
        new: The matrix and the new tokens, `[new]`.
        shares: Given how many parts there are, what each counts, float32 `[parts]`, one in sum.

    Returns:
        `[new, hidden]`, float32.
    """
    shares = cache(shares)
    counts = torch.tensor([len(parts) for parts in new.parts], dtype=torch.long)
    flat = torch.tensor([part for parts in new.parts for part in parts], dtype=torch.long)
    weights = torch.cat([torch.empty(0), *(shares(len(parts)) for parts in new.parts if parts)])
    weight = new.weight.detach()
    rows = functional.embedding_bag(
        flat, weight, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights.to(weight.dtype)
    )
    rows[counts == 0] = average_row(new)
    return rows


def even_shares(count: int) -> torch.Tensor:
    """Returns what each of so many parts counts in their mean."""
    return torch.full((count,), 1 / count, dtype=torch.float32)


def average_row(new: NewRows) -> torch.Tensor:
    """Returns the mean of the rows that tokens of the base have, `[hidden]`; spare rows were never trained."""
    return known_rows(new).mean(0, dtype=torch.float64).to(torch.float32)


def known_rows(new: NewRows) -> torch.Tensor:
    """Returns the rows that tokens of the base have, `[base ids, hidden]`."""
    return new.weight.detach()[: new.base.vocab_size]
