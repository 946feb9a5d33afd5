"""Muon: the step of a matrix is its gradient's mean with all singular values made about 1.

Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/, for the matrices of hidden layers; all else is trained
by AdamW. Steps are scaled as Moonshot does it (Liu et al., 2025, https://arxiv.org/abs/2502.16982), to the size of
AdamW's, whose rate and weight decay fit so: `adjust_lr_fn="match_rms_adamw"` of torch's own Muon.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from graftkit.training.each_parameter import EachParameter

__all__ = ["HIDDEN", "Muon"]

HIDDEN = "hidden"
"""The key of a group that says whether it is of matrices of hidden layers."""

_MOMENTUM = 0.95
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that each iteration takes of the singular values, from x on: x, x cubed, x to the fifth."""
_SMALLEST_NORM = 1e-7
_SIZE_OF_ADAMW = 0.2


class Muon(EachParameter):
    """Muon for matrices of hidden layers, and AdamW for all else, with decoupled weight decay.

    Args:
        params: Groups of parameters; under `HIDDEN` each says which of both it is trained by, AdamW when left out.
        lr: The rate of both.
        betas: AdamW's.
        eps: AdamW's.
        weight_decay: What of a parameter, times the rate, is taken away in a step.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, HIDDEN: False}
        super().__init__(params, defaults)

    def update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Steps a parameter."""
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = self._orthogonal if group[HIDDEN] else self._adam
        step(parameter, gradient, group)

    def _orthogonal(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(mean, _MOMENTUM)  # Nesterov's
        size = _SIZE_OF_ADAMW * math.sqrt(max(parameter.shape))
        parameter.sub_(_orthogonalized(ahead), alpha=group["lr"] * size)

    def _adam(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        fast, slow = group["betas"]
        state["step"] += 1
        steps = float(state["step"])
        mean = state["exp_avg"].lerp_(gradient, 1 - fast)
        squares = state["exp_avg_sq"].lerp_(gradient.square(), 1 - slow)
        size = (squares / (1 - slow**steps)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, size, value=-group["lr"] / (1 - fast**steps))


def _orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Returns a matrix of the same singular vectors whose singular values are about 1, in bfloat16.

    Newton and Schulz's iteration, in which the values come between 0.7 and 1.2; those of a matrix of zeros stay so.
    """
    own, cubed, fifth = _COEFFICIENTS
    found = matrix.bfloat16()
    tall = found.shape[0] > found.shape[1]
    found = found.T if tall else found
    found = found / found.norm().clamp(min=_SMALLEST_NORM)
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=cubed, alpha=fifth), found, beta=own)
    return found.T if tall else found
