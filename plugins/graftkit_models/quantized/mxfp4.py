"""MXFP4 as gpt-oss stores its experts: `NAME_blocks`, two numbers of 4 bits a byte, and `NAME_scales`, powers of two.

32 numbers share a scale, a byte of E8M0 (OCP Microscaling Formats, version 1.0). `blocks` is `[experts, out, groups,
16]` and `scales` `[experts, out, groups]`; the architecture has `[experts, in, out]` (transformers 5.23,
`integrations/mxfp4.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["mxfp4_matrices"]

_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LEVELS = (*_POSITIVE, *(-level for level in _POSITIVE))
"""What codes of 4 bits mean: a sign, two bits of exponent, one of mantissa (E2M1)."""

_GROUP = 32


def mxfp4_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each stack of matrices by its name.

    Raises:
        ModelError: The tensors of one do not fit together.
    """
    for blocks in tensors:
        name = blocks.removesuffix("_blocks")
        if name == blocks:
            continue
        scales = f"{name}_scales"
        tensors.check(blocks, "U8")
        shape = tensors.shape(blocks)
        if len(shape) != 4 or shape[3] != _GROUP // 2:
            raise settings.refused(f"tensor '{blocks}' is {list(shape)}, not [experts, out, groups, 16]")
        tensors.check(scales, "U8", shape[:3])
        experts, size_out, groups, _ = shape
        parts = {"codes": blocks, "scales": scales}
        nbytes = tensors.nbytes(blocks) + tensors.nbytes(scales)
        architecture = (experts, groups * _GROUP, size_out)
        yield name, QuantizedMatrix("mxfp4", architecture, parts, nbytes, partial(_store, architecture), by_matrix=True)


def _store(shape: tuple[int, ...], parts: Mapping[str, torch.Tensor]) -> StoredWeight:
    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_stack

    experts, size_in, size_out = shape
    matrix = (size_out, size_in)
    layout = ScaledLayout(shape=matrix, grid=matrix, block=(1, _GROUP), codes="uint4", levels=_LEVELS)
    tensors = {"codes": parts["codes"].view(experts, *layout.code_shape), "scales": parts["scales"]}
    return stored_stack("mxfp4", tensors, layout, shape, transposed=True)
