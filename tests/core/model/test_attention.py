"""Attention over packed rows, against torch's own, row by row."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from graftkit.model.attention import DeferredMask, packed_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_overlay,
    sliding_window_bidirectional_mask_function,
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


CHUNKS = chunked_overlay(300, torch.zeros(1, dtype=torch.int64))


def _sees_the_beginning(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return (key < 7) | (query - key < 40)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize(
    "overlay", [sliding_window_overlay(16), sliding_window_overlay(700), CHUNKS, _sees_the_beginning, None]
)
def test_sequences_longer_than_a_tile_see_what_their_mask_says(overlay: Any, softcap: float | None) -> None:
    """Against attention over the whole sequence with its whole mask."""
    lengths, bounds = [1300, 90, 513], torch.tensor([0, 1300, 1390, 1903])
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, n, sum(lengths), 16, generator=random).requires_grad_() for n in (4, 2, 2)]
    function = and_masks(causal_mask_function, overlay) if overlay else causal_mask_function
    mask = DeferredMask(function, False, torch.device("cpu"))
    found, _ = packed_attention(None, *inputs, mask, cu_seq_lens_q=bounds, softcap=softcap)
    expected = []
    for start, end in pairwise(bounds.tolist()):
        q, k, v = (tensor[:, :, start:end] for tensor in inputs)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        places = torch.arange(start, end)
        visible = function(0, 0, places[:, None], places[None])
        scores = q @ k.transpose(2, 3) / 4
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        expected.append((scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v).transpose(1, 2))
    whole = torch.cat(expected, 1)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
    wanted = torch.randn(whole.shape, generator=random)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, wanted), torch.autograd.grad(whole, inputs, wanted), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_with_a_window_a_sequence_needs_no_mask_of_its_whole_length() -> None:
    mask = DeferredMask(and_masks(causal_mask_function, sliding_window_overlay(16)), False, torch.device("cpu"))
    tiles = mask.tiles(10, 4106)
    assert sum(tile.mask.numel() for tile in tiles if tile.mask is not None) <= 4096 * (512 + 16)
    (plain,) = DeferredMask(causal_mask_function, False, torch.device("cpu")).tiles(10, 4106)
    assert plain.mask is None


def test_an_encoders_sequence_needs_no_mask() -> None:
    """Every token sees every other one: kernels are told so, and nothing is added to scores."""
    lengths, bounds = [1300, 1, 90], torch.tensor([0, 1300, 1301, 1391])
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, sum(lengths), 16, generator=random) for _ in range(3)]
    mask = DeferredMask(lambda batch, head, query, key: key >= 0, False, torch.device("cpu"))
    assert not any(tile.mask is not None or tile.causal for tile in mask.tiles(0, 1300))
    found, _ = packed_attention(None, *inputs, mask, cu_seq_lens_q=bounds)
    rows = zip(*(torch.split(tensor, lengths, dim=2) for tensor in inputs), strict=True)
    expected = torch.cat([scaled_dot_product_attention(*row) for row in rows], dim=2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "reach"),
    [
        (and_masks(causal_mask_function, sliding_window_overlay(16)), (15, 0)),
        (and_masks(causal_mask_function, sliding_window_overlay(200)), (199, 0)),
        (and_masks(causal_mask_function, sliding_window_overlay(500)), (499, 0)),
        (and_masks(causal_mask_function, chunked_overlay(50, torch.zeros(1, dtype=torch.int64))), None),
        (and_masks(causal_mask_function, lambda batch, head, query, key: query != key), None),
        (causal_mask_function, (9999, 0)),
        (bidirectional_mask_function, (9999, 9999)),
        (sliding_window_bidirectional_mask_function(16), (16, 16)),
        (lambda batch, head, query, key: (query == key) | (key > query + 3), None),
        (lambda batch, head, query, key: query < 0, None),
    ],
)
def test_a_mask_by_which_all_tokens_see_as_far_is_told_from_others(
    function: Any, reach: tuple[int, int] | None
) -> None:
    """Kernels that take all sequences in one call know windows, and nothing else."""
    for rest in ([], [5000], [1400, 4500, 4501]):
        bounds = [0, 5, 133, 134, 1334, *rest]
        longest = max(end - start for start, end in pairwise(bounds))
        mask = DeferredMask(function, False, torch.device("cpu"))
        found = mask.reach(bounds, torch.tensor(bounds, dtype=torch.int32))
        assert found == (reach and tuple(min(tokens, longest - 1) for tokens in reach))


@pytest.mark.parametrize("place", [3, 700, 2500, 6100])
def test_one_sequence_in_which_tokens_see_otherwise_is_found(place: int) -> None:
    bounds = [0, 5, 133, 134, 1334, 6000, 6200]

    def function(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & ~((query == place) & (key == place - 1))

    mask = DeferredMask(function, False, torch.device("cpu"))
    assert mask.reach(bounds, torch.tensor(bounds, dtype=torch.int32)) is None
