"""AWQ as AutoAWQ stores it for its GEMM kernels: integers of 4 bits in groups, a scale and a zero point each.

`qweight` is int32 `[in, out / 8]`, `qzeros` `[groups, out / 8]`, `scales` `[groups, out]`. Of eight codes in a word the
lowest bits hold the first, then come the third, the fifth, the seventh, the second and so on (AutoAWQ 0.2.9,
`utils/packing_utils.py`). A number is `(code - zero) * scale` in the type of the scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["awq_matrices"]

_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""In which place of a word, counted from the lowest bits, each of eight codes is."""


def awq_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each matrix by its name.

    Raises:
        ModelError: The file is of a variant that is not known, or the tensors of a matrix do not fit together.
    """
    settings.choose("bits", (4,))
    settings.choose("zero_point", (True,), True)
    settings.choose("backend", ("autoawq",), "autoawq")
    key = next((key for key in ("version", "checkpoint_format", "format") if settings.values.get(key)), "version")
    settings.choose(key, ("gemm", "GEMM"), "gemm")
    size = settings.size("group_size", 128)
    for layer in tensors.layers("qweight"):
        yield f"{layer}.weight", _matrix(settings, tensors, layer, size)


def _matrix(settings: Settings, tensors: FileTensors, layer: str, group_size: int) -> QuantizedMatrix:
    parts = {"codes": f"{layer}.qweight", "scales": f"{layer}.scales", "zeros": f"{layer}.qzeros"}
    tensors.check(parts["codes"], "I32")
    packed = tensors.shape(parts["codes"])
    if len(packed) != 2:
        raise settings.refused(f"tensor '{parts['codes']}' {list(packed)} is no matrix")
    size_in, size_out = packed[0], packed[1] * 8
    width = size_in if group_size == -1 else group_size
    groups = -(-size_in // width)
    tensors.check(parts["scales"], "F16 BF16 F32", (groups, size_out))
    tensors.check(parts["zeros"], "I32", (groups, packed[1]))
    nbytes = size_out * -(-size_in // 2) + tensors.nbytes(parts["scales"]) + size_out * groups
    shape = (size_out, size_in)
    return QuantizedMatrix("awq-int4", shape, parts, nbytes, partial(_store, shape, width))


def _store(shape: tuple[int, int], width: int, parts: Mapping[str, torch.Tensor]) -> StoredWeight:
    from graftkit_models.quantized.packed import in_bytes
    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_weight

    scales = parts["scales"].T.contiguous()
    tensors = {
        "codes": in_bytes(_codes(parts["codes"]).T, 4),
        "scales": scales,
        "zeros": _codes(parts["zeros"]).T.contiguous(),
    }
    rounded = str(scales.dtype).removeprefix("torch.")
    layout = ScaledLayout(shape=shape, grid=shape, block=(1, width), codes="uint4", rounded=rounded)
    return stored_weight("awq-int4", tensors, layout)


def _codes(packed: torch.Tensor) -> torch.Tensor:
    """Takes codes out of words, `[rows, words * 8]`, in their own order."""
    from graftkit_models.quantized.packed import unpacked

    return unpacked(packed, 4).view(len(packed), -1, 8)[..., list(_PLACES)].flatten(-2)
