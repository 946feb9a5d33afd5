"""Products of a matrix in int8 with inputs that are rounded to int8 for it, a scale a row.

As in LLM.int8() without its outliers (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339, section 2.1), in the
backward pass, too, as in SwitchBack (Wortsman et al., 2023, https://arxiv.org/abs/2304.13013, section 2.2). What is
added up are whole numbers in 32 bits, so that results are the same for any number of threads. Processors without
instructions for that (VNNI) add up pairs in 16 bits, which have no room for them: see `sums_are_exact`.
"""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["MOST_SUMMED", "product", "product_transposed", "sums_are_exact"]

MOST_SUMMED = (2**31 - 1) // 127**2
"""The most products of two numbers of 8 bits whose sum has room in 32 bits."""


@cache
def sums_are_exact() -> bool:
    """Tells whether torch's products of 8-bit integers are right on this processor, found out by the largest ones.

    oneDNN, which computes them, cuts sums of two off at 16 bits where the processor adds them up so
    (https://uxlfoundation.github.io/oneDNN/dev_guide_int8_computations.html).
    """
    largest = torch.full((32, 64), 127, dtype=torch.int8)
    expected = 64 * 127**2
    return all(bool((torch._int_mm(largest[:rows], largest.T) == expected).all()) for rows in (1, len(largest)))


def product(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Returns `x W^T`, where `W = scale * codes`.

    Args:
        x: `[..., in]`, floating point.
        codes: int8 `[out, in]`.
        scale: float32 `[out]`.

    Returns:
        `[..., out]`, in the type of `x`.
    """
    rounded, scales = _rounded(x.reshape(-1, x.shape[-1]).float())
    found = torch._int_mm(rounded, codes.T).float().mul_(scales).mul_(scale)
    return found.to(x.dtype).view(*x.shape[:-1], len(codes))


def product_transposed(grad: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Returns `grad W`, where `W = scale * codes`.

    Args:
        grad: `[..., out]`, floating point.
        codes: int8 `[out, in]`.
        scale: float32 `[out]`.

    Returns:
        `[..., in]`, in the type of `grad`.
    """
    rounded, scales = _rounded(grad.reshape(-1, grad.shape[-1]).float() * scale)
    found = torch._int_mm(rounded, codes).float().mul_(scales)
    return found.to(grad.dtype).view(*grad.shape[:-1], codes.shape[1])


def _rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns rows as whole numbers up to 127, int8 `[rows, columns]`, and their scales, float32 `[rows, 1]`.

    A row that holds NaN or infinity has a scale that is none, and so is its result.
    """
    absmax = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
    inverse = 127 / torch.where(absmax > 0, absmax, 1.0)
    return torch.mul(x, inverse).round_().to(torch.int8), absmax / 127
