"""New rows are trained with one second moment for all of them."""

from __future__ import annotations

import torch
from graftkit.training.row_optimizer import RowAdam
from torch import nn


def test_it_is_adam_with_the_mean_of_the_squared_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = nn.Parameter(torch.randn(5, 3, generator=generator))
    expected, first, second = rows.detach().clone(), torch.zeros(5, 3), 0.0
    optimizer = RowAdam([rows], lr=0.01, betas=(0.9, 0.95))
    for step in range(1, 6):
        gradient = torch.randn(5, 3, generator=generator)
        rows.grad = gradient.clone()
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient.square().mean().item()
        expected -= 0.01 * (first / (1 - 0.9**step)) / (second / (1 - 0.95**step)) ** 0.5
    assert torch.allclose(rows, expected, atol=1e-6)


def test_a_rare_rows_small_gradient_stays_small_whereas_adamw_makes_it_a_whole_step() -> None:
    moved = {}
    for make in (RowAdam, torch.optim.AdamW):
        rows = nn.Parameter(torch.zeros(2, 4))
        optimizer = make([rows], lr=0.01)
        for _ in range(10):
            rows.grad = torch.tensor([[1.0] * 4, [1e-4] * 4])
            optimizer.step()
        moved[make] = rows.detach().abs().amax(1)
    often, rarely = moved[RowAdam]
    assert rarely < 1e-3 * often
    often, rarely = moved[torch.optim.AdamW]
    assert rarely > 0.9 * often


def test_the_scale_of_the_loss_does_not_matter() -> None:
    results = []
    for scale in (1.0, 1e4):
        rows = nn.Parameter(torch.zeros(3, 2))
        optimizer = RowAdam([rows], lr=0.1)
        rows.grad = scale * torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 0.1]])
        optimizer.step()
        results.append(rows.detach().clone())
    assert torch.allclose(*results)
