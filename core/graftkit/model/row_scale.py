"""What an embedding multiplies the rows by that it looks up, as Gemma's does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.block_memory import exact_constants

__all__ = ["RowScale", "row_scale", "row_scale_of"]


@dataclass(frozen=True, slots=True)
class RowScale:
    """What rows are multiplied by once they are looked up.

    Attributes:
        own: The factor in the type that the model computes in.
        exact: The factor in float32, in which exports are proved.
    """

    own: float = 1.0
    exact: float = 1.0

    def times(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns rows, `[..., hidden]`, multiplied by the factor in their type."""
        scale = self.exact if rows.dtype == torch.float32 else self.own
        return rows if scale == 1 else rows * scale


def row_scale_of(module: Any) -> RowScale:
    """Returns what an embedding multiplies its rows by, which it is known to do at most."""
    unrounded = copy.copy(module)
    unrounded._buffers = {**module._buffers, **exact_constants(module)}
    own, exact = row_scale(module, module.weight.dtype), row_scale(unrounded, torch.float32)
    return RowScale(1.0 if own is None else own, 1.0 if exact is None else exact)


@torch.no_grad()
def row_scale(module: Any, dtype: torch.dtype) -> float | None:
    """Returns what an embedding multiplies its rows by in a dtype; None where it does anything else with them.

    It is found out by looking rows up in a copy with few, since architectures write the product in many ways: the
    factor is rounded to the dtype by some and not by others.
    """
    if not isinstance(module, nn.Embedding) or [name for name, _ in module.named_parameters()] != ["weight"]:
        return None
    device = next((buffer.device for buffer in module.buffers()), torch.device("cpu"))
    rows = torch.linspace(-1, 1, 4 * 8, device=device).view(4, 8).to(dtype)
    found = _looked_up(module, rows)
    for kind in (dtype, torch.float32):
        ones = _looked_up(module, torch.ones_like(rows, dtype=kind))
        scale = None if ones is None else float(ones[0, 0])
        if found is not None and scale is not None and torch.equal(found, rows * scale):
            return scale
    return None


def _looked_up(module: nn.Embedding, rows: torch.Tensor) -> torch.Tensor | None:
    """Returns what an embedding like this one gives for each row of a small matrix, or None where that is no row."""
    small = copy.copy(module)
    small.padding_idx = None  # a number of the large matrix's row, which decides on gradients only
    small._parameters = {"weight": nn.Parameter(rows, requires_grad=False)}
    try:
        found: Any = type(module).forward(small, torch.arange(len(rows), device=rows.device))
    except Exception:  # its code asks for more than ids
        return None
    right = isinstance(found, torch.Tensor) and found.shape == rows.shape and found.dtype == rows.dtype
    return found if right else None
