"""Packed attention on a CUDA device against attention written out in float64, sequence by sequence."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from graftkit.model import attention
from graftkit.model.attention import DeferredMask, packed_attention
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_overlay,
)

pytestmark = pytest.mark.gpu
LENGTHS = (130, 1, 16, 700, 65)
MASKS: dict[str, tuple[Any, tuple[int, int]]] = {
    "causal": (None, (700, 0)),
    "the last 16": (and_masks(causal_mask_function, sliding_window_overlay(16)), (15, 0)),
    "the last 200": (and_masks(causal_mask_function, sliding_window_overlay(200)), (199, 0)),
    "the last 5000": (and_masks(causal_mask_function, sliding_window_overlay(5000)), (4999, 0)),
    "both sides": (None, (700, 700)),
    "every one": (bidirectional_mask_function, (700, 700)),
    "16 on both sides": (sliding_window_bidirectional_mask_function(16), (16, 16)),
}
"""Functions of transformers', and how many tokens before and after itself each token sees by them."""
KINDS: dict[str, tuple[torch.dtype, float]] = {
    "bfloat16": (torch.bfloat16, 1e-2),
    "float16": (torch.float16, 2e-3),
    "float32": (torch.float32, 1e-5),
}


def written_out(q: Any, k: Any, v: Any, bounds: list[int], reach: tuple[int, int]) -> torch.Tensor:
    """Softmax attention within each sequence, in the type of what comes in; `[1, tokens, heads, head_dim]`."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    found = []
    for start, end in pairwise(bounds):
        scores = q[:, :, start:end] @ k[:, :, start:end].transpose(2, 3) * q.shape[-1] ** -0.5
        seen = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).tril(reach[1]).triu(-reach[0])
        found.append(torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v[:, :, start:end])
    return torch.cat(found, 2).transpose(1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 4, 64), (8, 2, 128), (3, 1, 72)])
def test_it_is_what_each_sequence_gets_alone(
    kind: str, mask: str, heads: int, groups: int, width: int, cuda: torch.device, monkeypatch: Any
) -> None:
    dtype, bound = KINDS[kind]
    bounds = [0, *torch.tensor(LENGTHS).cumsum(0).tolist()]
    random = torch.Generator(cuda).manual_seed(0)
    shapes = [(1, count, bounds[-1], width) for count in (heads, groups, groups)]
    inputs = [torch.randn(shape, generator=random, device=cuda).to(dtype).requires_grad_() for shape in shapes]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    taken = []
    at_once = attention.attend_at_once
    monkeypatch.setattr(attention, "attend_at_once", lambda *a: taken.append(a) or at_once(*a))

    function, reach = MASKS[mask]
    deferred = DeferredMask(function, False, cuda) if function else None
    cu_seq_lens = torch.tensor(bounds, dtype=torch.int32, device=cuda)
    told = {"cu_seq_lens_q": cu_seq_lens, "is_causal": reach[1] == 0}
    found, _ = packed_attention(torch.nn.Identity(), *inputs, deferred, **told)
    expected = written_out(*exact, bounds, reach)
    assert bool(taken) == (dtype != torch.float32), "16 bits take one call for all sequences"

    wanted = torch.randn(expected.shape, generator=random, device=cuda, dtype=torch.float64)
    gradients = torch.autograd.grad((found.double() * wanted).sum(), inputs)
    right = torch.autograd.grad((expected * wanted).sum(), exact)
    for ours, theirs in zip([found, *gradients], [expected, *right], strict=True):
        assert float(((ours.double() - theirs).norm() / theirs.norm()).detach()) < bound


@pytest.mark.parametrize("window", [None, 600])
def test_heads_that_share_keys_take_no_memory_by_the_square_of_the_length(
    window: int | None, cuda: torch.device
) -> None:
    """In float32, and under a mask, no kernel reads shared keys as they are, and torch would keep all scores."""
    tokens, width = 2048, 64
    shapes = [(1, heads, tokens, width) for heads in (8, 2, 2)]
    inputs = [torch.randn(shape, device=cuda).requires_grad_() for shape in shapes]
    mask = None
    if window is not None:
        mask = DeferredMask(and_masks(causal_mask_function, sliding_window_overlay(window)), False, cuda)
    cu_seq_lens = torch.tensor([0, tokens], dtype=torch.int32, device=cuda)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found, _ = packed_attention(torch.nn.Identity(), *inputs, mask, cu_seq_lens_q=cu_seq_lens, is_causal=True)
    found.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 8 * tokens * tokens * 4 / 2, "half of all scores"
