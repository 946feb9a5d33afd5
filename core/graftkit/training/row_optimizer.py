"""Adam for new rows of an embedding: one second moment for the whole matrix.

AdamW (Loshchilov & Hutter, 2017) divides each number's step by the size of its own gradients. Most new tokens are rare:
in nearly every step the only gradient of their rows is the tiny one that says "not this token here", and dividing by
its size makes it as large a step as any: rows that were hardly seen drift, all one way, as far as the others move. With
one second moment for all rows a rare row's small gradients stay small, as with plain gradient descent, and the
rate keeps Adam's independence of the loss's scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from graftkit.training.each_parameter import EachParameter

__all__ = ["RowAdam"]


class RowAdam(EachParameter):
    """Adam whose second moment is the mean over the matrix.

    Args:
        params: Matrices `[rows, hidden]`.
        lr: The rate: about how far a number moves in a step whose gradient is of the matrix's mean size.
        betas: How fast the moments forget.
        eps: Keeps a matrix without gradients from a division by zero.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-12,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Steps a matrix."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros((), device=parameter.device)
        fast, slow = group["betas"]
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - fast)
        state["exp_avg_sq"].lerp_(gradient.square().mean(), 1 - slow)
        steps = float(state["step"])
        size = (state["exp_avg_sq"] / (1 - slow**steps)).sqrt() + group["eps"]
        parameter.sub_(state["exp_avg"] / size, alpha=group["lr"] / (1 - fast**steps))
