"""GPTQ: integers of 4 or 8 bits in groups along the inputs, each group with a scale and a zero point.

`qweight` is int32 `[in * bits / 32, out]`, the inputs' codes packed; `qzeros` `[groups, out * bits / 32]`; `scales`
`[groups, out]`; `g_idx` `[in]` names the group of each input, which with act-order (`desc_act`) do not follow one
another. The first form, "gptq", stores each zero point less one; "gptq_v2" stores it as it is (GPTQModel 7,
`utils/model.py`). A number is `(code - zero) * scale` in the type of the scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["gptq_matrices"]

_CHANGED = ("dynamic", "is_marlin_format", "is_bitblas_format", "adapter", "rotation")
"""Settings under which the tensors mean something else."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a file's matrices are stored."""

    bits: int
    group_size: int
    act_order: bool
    less_one: bool


def gptq_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each matrix by its name.

    Raises:
        ModelError: The file is of a variant that is not known, or the tensors of a matrix do not fit together.
    """
    settings.without(*_CHANGED)
    settings.choose("pack_dtype", ("int32",), "int32")
    key = "checkpoint_format" if settings.values.get("checkpoint_format") else "format"
    form = _Form(
        bits=settings.choose("bits", (4, 8)),
        group_size=settings.size("group_size", -1),
        act_order=settings.choose("desc_act", (True, False), False),
        less_one=settings.choose(key, ("gptq", "gptq_v2"), "gptq") == "gptq",
    )
    for layer in tensors.layers("qweight"):
        yield f"{layer}.weight", _matrix(settings, tensors, layer, form)


def _matrix(settings: Settings, tensors: FileTensors, layer: str, form: _Form) -> QuantizedMatrix:
    parts = {"codes": f"{layer}.qweight", "scales": f"{layer}.scales", "zeros": f"{layer}.qzeros"}
    tensors.check(parts["codes"], "I32")
    packed = tensors.shape(parts["codes"])
    if len(packed) != 2 or packed[1] * form.bits % 32:
        raise settings.refused(f"tensor '{parts['codes']}' {list(packed)} is no matrix of whole words")
    size_in, size_out = packed[0] * 32 // form.bits, packed[1]
    width = size_in if form.group_size == -1 else form.group_size
    groups = -(-size_in // width)
    tensors.check(parts["scales"], "F16 BF16 F32", (groups, size_out))
    tensors.check(parts["zeros"], "I32", (groups, size_out * form.bits // 32))
    order = f"{layer}.g_idx"
    if form.act_order or order in tensors:
        tensors.check(order, "I32", (size_in,))
        parts["order"] = order
    nbytes = size_out * size_in * form.bits // 8 + tensors.nbytes(parts["scales"]) + size_out * groups
    nbytes += 4 * size_in if form.act_order else 0
    kind, shape = f"gptq-int{form.bits}", (size_out, size_in)
    return QuantizedMatrix(kind, shape, parts, nbytes, partial(_store, kind, shape, width, form))


def _store(
    kind: str, shape: tuple[int, int], width: int, form: _Form, parts: Mapping[str, torch.Tensor]
) -> StoredWeight:
    import torch

    from graftkit_models.quantized.packed import in_bytes, unpacked
    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_weight

    scales = parts["scales"].T.contiguous()
    zeros = unpacked(parts["zeros"], form.bits).T
    if form.less_one:
        zeros = zeros + 1 & (1 << form.bits) - 1
    tensors = {
        "codes": in_bytes(unpacked(parts["codes"].T, form.bits), form.bits),
        "scales": scales,
        "zeros": zeros.contiguous(),
    }
    order = parts.get("order")
    if order is not None:
        if order.amin() < 0 or order.amax() >= scales.shape[1]:
            raise ValueError("its g_idx names groups that there are not")
        if form.act_order:
            tensors["order"] = order
        elif not torch.equal(order.long(), torch.arange(shape[1]) // width):
            raise ValueError("its g_idx is out of order, where desc_act is false")
    layout = ScaledLayout(
        shape=shape,
        grid=shape,
        block=(1, width),
        codes="uint4" if form.bits == 4 else "uint8",
        rounded=str(scales.dtype).removeprefix("torch."),
    )
    return stored_weight(kind, tensors, layout)
