"""compressed-tensors, which llm-compressor writes: packed integers, plain int8 and FP8, with a scale a group.

In "pack-quantized" `weight_packed` is int32 `[out, in * bits / 32]`, the codes moved up to begin at 0, the lowest bits
first; `weight_shape` has the matrix's shape, `weight_zero_point`, where there is one, is packed along the outputs. In
"int-quantized", "float-quantized" and "naive-quantized" `weight` itself is int8 or float8_e4m3fn. `weight_scale` has a
scale for a matrix, a row, a group of a row or a block (compressed-tensors 0.20, `compressors/`); `weight_g_idx` names
the group of each column, or is -1. A number is `(code - zero) * scale` in the type of the scales. What the format says
of activations is left out: in training they stay in floating point.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["compressed_tensors_matrices"]

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
_ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
"""Tensors of a layer that say how activations are rounded."""


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a file's matrices are stored.

    Attributes:
        bits: Of a code.
        float: Whether codes are float8 rather than integers.
        block: Rows and columns that share a scale; None for all there are.
        zeros: Whether each block has a zero point.
    """

    bits: int
    float: bool
    block: tuple[int | None, int | None]
    zeros: bool


def compressed_tensors_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each matrix by its name.

    Raises:
        ModelError: The file is of a variant that is not known, or the tensors of a matrix do not fit together.
    """
    settings.without("kv_cache_scheme", "transform_config")
    settings.choose("quantization_status", ("compressed", "frozen"), "compressed")
    sparsity = settings.values.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format") not in (None, "dense"):
        raise settings.refused(f"its weights are sparse, too ({str(sparsity['format'])[:40]!r})")
    scheme = _scheme(settings)
    for layer in tensors.layers("weight_scale"):
        yield f"{layer}.weight", _matrix(settings, tensors, layer, scheme)


def _scheme(settings: Settings) -> _Scheme:
    """Returns what all groups of layers have in common.

    Raises:
        ModelError: They differ, or are of a kind that is not known.
    """
    groups = settings.values.get("config_groups")
    if not isinstance(groups, dict) or not groups or not all(isinstance(group, dict) for group in groups.values()):
        raise settings.refused("config_groups does not say how layers are stored")
    found = [_scheme_of(settings, name, group) for name, group in groups.items()]
    if any(scheme != found[0] for scheme in found):
        raise settings.refused(f"its {len(found)} config_groups are stored in different ways")
    return found[0]


def _scheme_of(settings: Settings, name: str, group: Mapping[str, Any]) -> _Scheme:
    weights, format_ = group.get("weights"), group.get("format") or settings.values.get("format")
    own = Settings(f"{settings.key}.config_groups.{name}", {"format": format_}, settings.where)
    own.choose("format", _FORMATS)
    if not isinstance(weights, dict):
        raise own.refused("it says nothing of weights")
    own = Settings(f"{own.key}.weights", weights, settings.where)
    is_float = own.choose("type", ("int", "float"), "int") == "float"
    bits = own.choose("num_bits", (8,) if is_float or format_ != "pack-quantized" else (4, 8))
    if is_float and format_ == "pack-quantized":
        raise own.refused("type is 'float', of which nothing is packed")
    symmetric = own.choose("symmetric", (True,) if is_float else (True, False), True)
    strategy = own.choose("strategy", ("tensor", "channel", "group", "block"), "tensor")
    block: tuple[int | None, int | None] = (None, None)
    if strategy == "block":
        sizes = weights.get("block_structure")
        if not (isinstance(sizes, list) and len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)):
            raise own.refused("block_structure has no two sizes")
        block = (sizes[0], sizes[1])
    elif strategy != "tensor":
        block = (1, own.size("group_size") if strategy == "group" else None)
    return _Scheme(bits, is_float, block, not symmetric)


def _matrix(settings: Settings, tensors: FileTensors, layer: str, scheme: _Scheme) -> QuantizedMatrix:
    packed = f"{layer}.weight_packed" in tensors
    codes = f"{layer}.weight_packed" if packed else f"{layer}.weight"
    shape = _shape(settings, tensors, layer, scheme, codes, packed=packed)
    rows, columns = shape
    block = (scheme.block[0] or rows, scheme.block[1] or columns)
    blocks = (-(-rows // block[0]), -(-columns // block[1]))
    if packed and scheme.float:
        raise settings.refused(f"tensor '{codes}' is packed integers, where its format has floating point numbers")
    if packed and scheme.zeros and blocks[0] != rows:
        raise settings.refused(f"'{layer}' has zero points that rows share, which are not known packed")
    parts = {"codes": codes, "scales": f"{layer}.weight_scale"}
    tensors.check(parts["scales"], "F16 BF16 F32")
    found = tensors.shape(parts["scales"])
    if found != blocks and not (blocks[1] == 1 and prod(found) == blocks[0]):
        raise settings.refused(f"'{parts['scales']}' is {list(found)}, where its weight has {list(blocks)} scales")
    zeros = f"{layer}.weight_zero_point"
    if zeros in tensors:
        parts["zeros"] = zeros
    if scheme.zeros:
        if packed:
            tensors.check(zeros, "I32", (-(-rows * scheme.bits // 32), blocks[1]))
        else:
            tensors.check(zeros, "I8", found)
    if f"{layer}.weight_g_idx" in tensors:
        parts["order"] = f"{layer}.weight_g_idx"
        tensors.check(parts["order"], "I32", (columns,))
    given = ("weight_shape", *_ACTIVATIONS)
    parts |= {part: f"{layer}.{part}" for part in given if f"{layer}.{part}" in tensors}
    nbytes = rows * -(-columns * scheme.bits // 8) + tensors.nbytes(parts["scales"])
    nbytes += prod(blocks) if scheme.zeros else 0
    nbytes += 4 * columns if "order" in parts else 0
    kind = f"compressed-tensors-{'float' if scheme.float else 'int'}{scheme.bits}"
    store = partial(_store, kind, shape, block, scheme, packed)
    return QuantizedMatrix(kind, shape, parts, nbytes, store)


def _shape(
    settings: Settings, tensors: FileTensors, layer: str, scheme: _Scheme, codes: str, *, packed: bool
) -> tuple[int, int]:
    """Returns the shape of the matrix.

    Raises:
        ModelError: Its codes have another.
    """
    if not packed:
        tensors.check(codes, "F8_E4M3" if scheme.float else "I8")
        shape = tensors.shape(codes)
    else:
        tensors.check(codes, "I32")
        tensors.check(f"{layer}.weight_shape", "I64", (2,))
        shape = struct.unpack("<2q", tensors.read(f"{layer}.weight_shape"))
        if min(shape) < 1 or tensors.shape(codes) != (shape[0], -(-shape[1] * scheme.bits // 32)):
            raise settings.refused(f"tensor '{codes}' {list(tensors.shape(codes))} does not hold {list(shape)}")
    if len(shape) != 2:
        raise settings.refused(f"tensor '{codes}' {list(shape)} is no matrix")
    return shape[0], shape[1]


def _store(
    kind: str,
    shape: tuple[int, int],
    block: tuple[int, int],
    scheme: _Scheme,
    packed: bool,
    parts: Mapping[str, torch.Tensor],
) -> StoredWeight:
    import torch

    from graftkit_models.quantized.packed import in_bytes, unpacked
    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_weight

    middle, zeros = 1 << scheme.bits - 1, parts.get("zeros")
    if zeros is not None and not scheme.zeros:
        own = unpacked(zeros.reshape(1, -1), scheme.bits) - middle if zeros.dtype == torch.int32 else zeros.float()
        if zeros.float().count_nonzero() and own.count_nonzero():
            raise ValueError("it has zero points, where its format is symmetric")
        zeros = None
    codes = in_bytes(unpacked(parts["codes"], scheme.bits)[:, : shape[1]], scheme.bits) if packed else parts["codes"]
    layout = ScaledLayout(
        shape=shape,
        grid=shape,
        block=block,
        codes=f"uint{scheme.bits}" if packed else "float8_e4m3fn" if scheme.float else "int8",
        zero=middle if packed and zeros is None else 0,
        rounded=str(parts["scales"].dtype).removeprefix("torch."),
    )
    tensors = {"codes": codes, "scales": parts["scales"].reshape(layout.blocks)}
    if zeros is not None:
        own = unpacked(zeros.T, scheme.bits).T[: shape[0]] if packed else zeros
        tensors["zeros"] = own.reshape(layout.blocks)
    order = parts.get("order")
    if order is not None and (order == -1).any():  # as its own programs have it until it is set: columns are in order
        order = torch.arange(shape[1], dtype=torch.int32) // block[1]
    if order is not None:
        if order.amin() < 0 or order.amax() >= layout.blocks[1]:
            raise ValueError("its g_idx names groups that there are not")
        tensors["order"] = order
    return stored_weight(kind, tensors, layout)
