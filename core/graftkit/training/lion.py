"""Lion: the sign of a mean of the gradient is the step.

Chen et al., 2023, https://arxiv.org/abs/2302.06675, algorithm 2. The mean that a step takes the sign of has more of the
step's own gradient than the one that is kept. Each number moves by the rate, whatever its gradient's size, so that the
rate is a third to a tenth of AdamW's, and the weight decay as much larger.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graftkit.training.each_parameter import EachParameter

__all__ = ["Lion"]


class Lion(EachParameter):
    """Lion, with decoupled weight decay.

    Args:
        params: Parameters, or groups of them.
        lr: How far each number moves in a step.
        betas: What of the kept mean is in the mean that is stepped by, and in the one that is kept.
        weight_decay: What of a parameter, times the rate, is taken away in a step.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Steps a parameter."""
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        mean, (stepped, kept) = state["exp_avg"], group["betas"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(mean.lerp(gradient, 1 - stepped).sign_(), alpha=group["lr"])
        mean.lerp_(gradient, 1 - kept)
