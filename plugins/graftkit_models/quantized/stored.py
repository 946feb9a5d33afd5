"""Makes stored weights of what the formats read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from graftkit import StoredWeight

from graftkit_models.quantized.scaled_weight import ScaledLayout, ScaledWeight

__all__ = ["stored_stack", "stored_weight"]


def stored_weight(
    kind: str,
    tensors: Mapping[str, torch.Tensor],
    layout: ScaledLayout,
    *,
    own: Mapping[str, torch.Tensor] | None = None,
    meta: Mapping[str, Any] | None = None,
    transposed: bool = False,
) -> StoredWeight:
    """Returns a matrix that can be kept as it lies.

    Args:
        kind: The format's name.
        tensors: What a `ScaledWeight` of the layout has.
        layout: As above.
        own: The same tensors by the names that quantizers know which have a weight of their own for this kind.
        meta: What those need beside them.
        transposed: Whether the architecture has the matrix the other way round.

    Raises:
        ValueError: A tensor is of another shape or type than the layout says.
    """
    ScaledWeight.check(tensors, layout)
    freeze = partial(ScaledWeight.from_state, dict(tensors), asdict(layout))
    dequantize = partial(_dequantized, freeze, transposed)
    shape = layout.shape[::-1] if transposed else layout.shape
    given = dict(tensors if own is None else own)
    return StoredWeight(
        kind, shape, given, asdict(layout) if meta is None else meta, dequantize, None if transposed else freeze
    )


def stored_stack(
    kind: str, tensors: Mapping[str, torch.Tensor], layout: ScaledLayout, shape: tuple[int, ...], *, transposed: bool
) -> StoredWeight:
    """Returns a stack of matrices, each of which can be kept as it lies.

    Args:
        kind: The format's name.
        tensors: What a `ScaledWeight` of one matrix has, of all of them: `[matrices, ...]`.
        layout: Of one matrix.
        shape: Of the stack, as in the architecture.
        transposed: Whether the architecture has each matrix the other way round.
    """

    def matrix(number: int) -> StoredWeight:
        return stored_weight(kind, {name: tensor[number] for name, tensor in tensors.items()}, layout)

    def dequantize() -> torch.Tensor:
        made = [ScaledWeight.from_state(matrix(n).tensors, asdict(layout)).dequantize() for n in range(shape[0])]
        return torch.stack([one.T for one in made] if transposed else made).contiguous()

    return StoredWeight(kind, shape, tensors, asdict(layout), dequantize, matrix=matrix)


def _dequantized(freeze: partial[ScaledWeight], transposed: bool) -> torch.Tensor:
    matrix = freeze().dequantize()
    return matrix.T.contiguous() if transposed else matrix
