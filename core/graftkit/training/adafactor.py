"""Adafactor: of a matrix's squared gradients one mean a row and one a column is kept.

Shazeer and Stern, 2018, https://arxiv.org/abs/1804.04235, as transformers' trainer takes it: no mean of the gradient,
and the recipe's own rate in the place of one by the step's number and the parameter's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graftkit.training.each_parameter import EachParameter

__all__ = ["Adafactor", "factors_of"]

_FORGETS = 0.8
"""In step t the mean of squares keeps 1 - t ** -0.8 of itself."""

_SMALLEST = 1e-30
"""What is added to squares, so that none is zero."""

_LARGEST = 1.0
"""The root mean square that a step is scaled down to, before the rate."""


def factors_of(shape: torch.Size) -> dict[str, torch.Size]:
    """Returns the shapes of the means of squares that are kept of a parameter, by key.

    Example:
        >>> factors_of(torch.Size([16, 64]))
        {'exp_avg_sq_row': torch.Size([16]), 'exp_avg_sq_col': torch.Size([64])}
    """
    if len(shape) < 2:
        return {"exp_avg_sq": shape}
    return {"exp_avg_sq_row": shape[:-1], "exp_avg_sq_col": shape[:-2] + shape[-1:]}


class Adafactor(EachParameter):
    """Adafactor at a given rate, with decoupled weight decay.

    Args:
        params: Parameters, or groups of them.
        lr: The rate: the root mean square of a step at most.
        weight_decay: What of a parameter, times the rate, is taken away in a step.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Steps a parameter."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for key, shape in factors_of(parameter.shape).items():
                state[key] = gradient.new_zeros(shape)
        state["step"] += 1
        forgotten = float(state["step"]) ** -_FORGETS
        update = _divided_by_size(gradient, state, forgotten)
        update.div_((_root_mean_square(update) / _LARGEST).clamp_(min=1.0))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update, alpha=group["lr"])


def _divided_by_size(gradient: torch.Tensor, state: dict[str, torch.Tensor], forgotten: float) -> torch.Tensor:
    """Takes a gradient into the means of squares; returns it, divided by the roots that they give its numbers."""
    squares = gradient.square().add_(_SMALLEST)
    if "exp_avg_sq" in state:
        return state["exp_avg_sq"].lerp_(squares, forgotten).rsqrt().mul_(gradient)
    rows = state["exp_avg_sq_row"].lerp_(squares.mean(dim=-1), forgotten)
    columns = state["exp_avg_sq_col"].lerp_(squares.mean(dim=-2), forgotten)
    of_rows = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
    return of_rows * columns.rsqrt().unsqueeze(-2) * gradient


def _root_mean_square(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.square().mean().sqrt()
