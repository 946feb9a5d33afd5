"""What quantizers check before they store a weight, or take over a stored one."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["check_matrix", "check_tensors"]


def check_matrix(weight: torch.Tensor) -> None:
    """Refuses what can't be quantized.

    Raises:
        ValueError: The tensor is no matrix, is empty, or holds NaN or infinity.
    """
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"a weight is a matrix [out, in]; this has shape {list(weight.shape)}")
    if not weight.is_floating_point() or not torch.isfinite(weight).all():
        raise ValueError("the weight holds NaN, infinity, or no floating-point numbers")


def check_tensors(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
) -> None:
    """Compares names, types and shapes.

    Raises:
        ValueError: One differs.
    """
    if tensors.keys() != expected.keys():
        raise ValueError(f"stored tensors {sorted(tensors)} are not {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        if found.dtype != dtype or tuple(found.shape) != shape:
            raise ValueError(f"stored tensor '{name}' is {found.dtype} {list(found.shape)}, not {dtype} {list(shape)}")
