"""FP8 as DeepSeek-V3 and Qwen3 store it: float8_e4m3fn, and `weight_scale_inv`, a scale for each block.

The name means that numbers were divided by its inverse: it is what they are multiplied with. Blocks are
`weight_block_size`, 128 x 128, those at the edges cut off; without that a matrix has one scale. Scales are floating
point, or powers of two in a byte (E8M0). A stack of experts has `experts.down_proj` and `experts.down_proj_scale_inv`
(transformers 5.23, `integrations/finegrained_fp8.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["fp8_matrices"]

_END = "_scale_inv"


def fp8_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each matrix by its name.

    Raises:
        ModelError: The tensors of one do not fit together.
    """
    block = settings.values.get("weight_block_size")
    if block is not None and not (
        isinstance(block, list) and len(block) == 2 and all(type(n) is int and 0 < n < 1 << 20 for n in block)
    ):
        raise settings.refused(f"weight_block_size is {str(block)[:60]!r}, which are no two sizes")
    settings.choose("fmt", ("e4m3",), "e4m3")
    settings.choose("scale_fmt", ("float", "ue8m0"), "float")
    for name in tensors:
        if name.endswith(_END):
            weight = name.removesuffix(_END)
            yield weight, _matrix(settings, tensors, weight, tuple(block) if block else None)


def _matrix(settings: Settings, tensors: FileTensors, weight: str, block: tuple[int, int] | None) -> QuantizedMatrix:
    tensors.check(weight, "F8_E4M3")
    scales = f"{weight}{_END}"
    tensors.check(scales, "F32 BF16 F16 U8 F8_E8M0")
    shape, found = tensors.shape(weight), tensors.shape(scales)
    if len(shape) not in (2, 3):
        raise settings.refused(f"tensor '{weight}' {list(shape)} is neither a matrix nor a stack of them")
    *_, rows, columns = shape
    height, width = block or (rows, columns)
    wanted = (*shape[:-2], -(-rows // height), -(-columns // width))
    if found != wanted and not (len(shape) == 2 and prod(wanted) == prod(found) == 1):
        raise settings.refused(f"'{scales}' is {list(found)}, where blocks of {height} x {width} have {list(wanted)}")
    parts = {"codes": weight, "scales": scales}
    static = f"{weight.removesuffix('.weight')}.activation_scale"
    if static in tensors:
        parts["activation_scale"] = static
    nbytes = tensors.nbytes(weight) + tensors.nbytes(scales)
    return QuantizedMatrix("fp8", shape, parts, nbytes, partial(_store, shape, (height, width)))


def _store(shape: tuple[int, ...], block: tuple[int, int], parts: Mapping[str, torch.Tensor]) -> StoredWeight:
    import torch

    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_stack, stored_weight

    matrix = (shape[-2], shape[-1])
    layout = ScaledLayout(shape=matrix, grid=matrix, block=block, codes="float8_e4m3fn")
    scales = parts["scales"]
    scales = scales.view(torch.uint8) if scales.dtype == torch.float8_e8m0fnu else scales
    tensors = {"codes": parts["codes"], "scales": scales.reshape(*shape[:-2], *layout.blocks)}
    if len(shape) == 2:
        return stored_weight("fp8", tensors, layout)
    # Which way round a stack's matrices are multiplied by, the file does not say: they are not given one by one.
    return replace(stored_stack("fp8", tensors, layout, shape, transposed=False), matrix=None)
