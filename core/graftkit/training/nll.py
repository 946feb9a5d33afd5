"""The negative log-likelihood of tokens, with its analytic gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax

__all__ = ["summed_nll"]


def summed_nll(
    logits: torch.Tensor, labels: torch.Tensor, scale: float = 1.0, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns `scale` times the sum over tokens, in nats; a scalar, float32, as `cross_entropy` gives it in float32.

    The gradient by the logits is their softmax, less one at the label. It is made in the place of the logarithms, so
    that a pass or two over `[tokens, vocabulary]` in float32 are all that it adds to them.

    Args:
        logits: `[tokens, vocabulary]`.
        labels: `[tokens]`, ids.
        scale: What the sum is multiplied by, and the gradient while it is float32: 1 / 1,000 has no equal in bfloat16.
        weights: What each token's term is multiplied by, `[tokens]`, float32; 1 each when left out.
    """
    result: torch.Tensor = _SummedNll.apply(logits, labels, scale, weights)  # type: ignore[no-untyped-call]
    return result


class _SummedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, scale: float, weights: torch.Tensor | None
    ) -> torch.Tensor:
        logs = log_softmax(logits, 1, dtype=torch.float32)
        at_labels = labels.unsqueeze(1)
        of_labels = logs.gather(1, at_labels)
        total = -(of_labels if weights is None else of_labels.squeeze(1) * weights).sum()
        if ctx.needs_input_grad[0]:
            gradient = logs.exp_()
            gradient.scatter_add_(1, at_labels, gradient.new_full((), -1.0).expand_as(at_labels))
            factor = scale if weights is None else scale * weights.unsqueeze(1)
            ctx.save_for_backward(gradient.mul_(factor).to(logits.dtype))
        return total * scale

    @staticmethod
    def backward(ctx: Any, of_total: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * of_total, None, None, None
