"""Attention over packed rows, against torch's own, row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graftkit.model.attention import DeferredMask, packed_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    chunked_overlay,
    sliding_window_overlay,
)

ROWS = [5, 128, 1, 200]


def heads(dtype: torch.dtype) -> list[torch.Tensor]:
    """Nine heads that look things up in three."""
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, n, sum(ROWS), 64, generator=random).to(dtype).requires_grad_() for n in (9, 3, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_attends_to_itself_as_torch_computes_it(dtype: torch.dtype) -> None:
    inputs = heads(dtype)
    found, weights = packed_attention(None, *inputs, None, cu_seq_lens_q=torch.tensor([0, 5, 133, 134, 334]))
    rows = zip(*(torch.split(tensor.float(), ROWS, dim=2) for tensor in inputs), strict=True)
    exact = [scaled_dot_product_attention(*row, is_causal=True, enable_gqa=True) for row in rows]
    expected = torch.cat(exact, dim=2).transpose(1, 2)
    assert (found.dtype, weights) == (dtype, None)
    off = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(found.float(), expected, rtol=off, atol=off)
    wanted = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, wanted.to(dtype)), torch.autograd.grad(expected, inputs, wanted), strict=True
    ):
        assert (ours.float() - theirs.float()).norm() < off * theirs.float().norm()


@pytest.mark.parametrize(
    ("overlay", "band"),
    [
        (sliding_window_overlay(16), 16),
        (sliding_window_overlay(200), 200),
        (sliding_window_overlay(500), 200),
        (chunked_overlay(50, torch.zeros(1, dtype=torch.int64)), 0),
        (lambda batch, head, query, key: query != key, 0),
    ],
)
def test_a_mask_that_is_causal_within_a_window_is_told_from_others(overlay: Any, band: int) -> None:
    """Kernels that take all sequences in one call know windows, and nothing else."""
    mask = DeferredMask(and_masks(causal_mask_function, overlay), False, torch.device("cpu"))
    assert mask.band([0, 5, 133, 134, 334]) == band
