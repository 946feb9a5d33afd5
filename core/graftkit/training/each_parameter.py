"""The base of optimizers that step each parameter on its own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import nn

__all__ = ["EachParameter"]


class EachParameter(torch.optim.Optimizer):
    """An optimizer whose `update` steps one parameter, whatever the others' gradients are."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Takes a step with the gradients that there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, group)

    @abstractmethod
    def update(self, parameter: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Steps a parameter in place.

        Args:
            parameter: Of any shape.
            gradient: Its gradient, of the same shape; it may be changed.
            group: The settings of the parameter's group.
        """
