"""bitsandbytes' own checkpoints: NF4 and FP4 in blocks, int8 with one scale a row.

Beside `weight`, the codes, in 4 bits there are `weight.absmax`, the blocks' scales, `weight.quant_map`, the sixteen
levels, and `weight.quant_state.bitsandbytes__nf4` (or `__fp4`), JSON as bytes: block size, shape, and the type that
numbers are rounded to. Under double quantization `absmax` is codes itself, which `nested_absmax`, `nested_quant_map`
and `nested_offset` explain. Blocks run through the whole matrix and take no notice of rows. In 8 bits there is `SCB`,
the largest magnitude of each row, and `weight_format`, which is 0 for plain rows (bitsandbytes 0.50,
`functional.QuantState`, `nn.Linear8bitLt`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from graftkit.interfaces.bounded_json import parse_json

from graftkit_models.quantized.matrix import FileTensors, QuantizedMatrix, Settings

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["CONV1D", "bitsandbytes_matrices"]

CONV1D = frozenset({"gpt2", "openai-gpt"})
"""The architectures whose linear layers are transformers' `Conv1D`, `[in, out]`: of those, too, it has bitsandbytes
quantize `[out, in]`, and the file holds that."""

_STATE = ".quant_state.bitsandbytes__"
_ROUNDED = ("float32", "float16", "bfloat16")
_NESTED = ("nested_absmax", "nested_quant_map")


def bitsandbytes_matrices(settings: Settings, tensors: FileTensors) -> Iterator[tuple[str, QuantizedMatrix]]:
    """Yields each matrix by its name.

    Raises:
        ModelError: The tensors of one do not fit together, or its layout is one of bitsandbytes' for single GPUs.
    """
    for name in tensors:
        weight, found, type_ = name.partition(_STATE)
        if found:
            yield weight, _four_bits(settings, tensors, weight, type_)
        elif name.endswith(".SCB"):
            layer = name.removesuffix(".SCB")
            yield f"{layer}.weight", _eight_bits(settings, tensors, layer)


@dataclass(frozen=True, slots=True)
class _State:
    """What the JSON beside a matrix in 4 bits says of it."""

    type: str
    shape: tuple[int, int]
    blocksize: int
    rounded: str
    nested_blocksize: int = 0
    nested_offset: float = 0.0

    @property
    def blocks(self) -> int:
        return -(-prod(self.shape) // self.blocksize)


def _four_bits(settings: Settings, tensors: FileTensors, name: str, type_: str) -> QuantizedMatrix:
    state = _state(settings, name, type_, tensors.read(f"{name}{_STATE}{type_}"))
    nested, codes = state.nested_blocksize > 0, -(-prod(state.shape) // 2)
    tensors.check(name, "U8 I8 BF16 F16 F32")
    if tensors.nbytes(name) != codes:
        raise settings.refused(f"tensor '{name}' has {tensors.nbytes(name):,} bytes, for {list(state.shape)} in 4 bits")
    tensors.check(f"{name}.absmax", "U8" if nested else "F32", (state.blocks,))
    tensors.check(f"{name}.quant_map", "F32", (16,))
    parts = {"codes": name, "absmax": f"{name}.absmax", "quant_map": f"{name}.quant_map"}
    parts["quant_state"] = f"{name}{_STATE}{type_}"
    nbytes = codes + tensors.nbytes(parts["absmax"])
    if nested:
        scales = -(-state.blocks // state.nested_blocksize)
        tensors.check(f"{name}.nested_absmax", "F32", (scales,))
        tensors.check(f"{name}.nested_quant_map", "F32", (256,))
        parts |= {part: f"{name}.{part}" for part in _NESTED}
        nbytes += 4 * scales + 4
    transposed = settings.config.get("model_type") in CONV1D
    shape = state.shape[::-1] if transposed else state.shape
    kind = f"bitsandbytes-{state.type}"
    return QuantizedMatrix(kind, shape, parts, nbytes, partial(_store_four_bits, kind, state, transposed))


def _state(settings: Settings, name: str, type_: str, raw: bytes) -> _State:
    """Reads the JSON.

    Raises:
        ModelError: It is none, or says what this reader does not know.
    """
    try:
        data = parse_json(raw)
        shape, nested = tuple(data["shape"]), "nested_blocksize" in data
        sizes = (*shape, data["blocksize"], *((data["nested_blocksize"],) if nested else ()))
        offset = float(data["nested_offset"]) if nested else 0.0
        known = data["quant_type"] == type_ and type_ in ("nf4", "fp4") and data["dtype"] in _ROUNDED
        known = known and len(shape) == 2 and isfinite(offset)
        known = known and all(type(size) is int and 0 < size < 1 << 31 for size in sizes)
        known = known and data["blocksize"] % 2 == 0  # a block begins with a byte
    except (ValueError, KeyError, TypeError, OverflowError):
        known = False
    if not known:
        raise settings.refused(
            f"what is stored beside '{name}' ({type_[:20]!r}) is no layout of bitsandbytes' known here"
        )
    return _State(type_, shape, data["blocksize"], data["dtype"], data["nested_blocksize"] if nested else 0, offset)


def _store_four_bits(kind: str, state: _State, transposed: bool, parts: Mapping[str, torch.Tensor]) -> StoredWeight:
    import torch

    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_weight

    nested, numbers = state.nested_blocksize > 0, prod(state.shape)
    whole = numbers % state.blocksize == 0
    layout = ScaledLayout(
        shape=state.shape,
        grid=(state.blocks, state.blocksize) if whole else (1, numbers),
        block=(1, state.blocksize),
        codes="uint4",
        levels=tuple(parts["quant_map"].tolist()),
        high_first=True,
        rounded=state.rounded,
        nested_levels=tuple(parts["nested_quant_map"].tolist()) if nested else None,
        nested_block=state.nested_blocksize,
    )
    codes, absmax = parts["codes"].view(-1).view(torch.uint8), parts["absmax"]
    tensors = {"codes": codes.view(layout.code_shape), "scales": absmax.view(layout.blocks)}
    own: dict[str, Any] = {"codes": codes, "absmax": absmax}
    if nested:
        offset = torch.tensor([state.nested_offset], dtype=torch.float32)
        tensors |= {"nested_scales": parts["nested_absmax"], "nested_offset": offset}
        own |= {"nested_absmax": parts["nested_absmax"], "nested_offset": offset}
    meta = {
        "in_features": state.shape[1],
        "blocksize": state.blocksize,
        "double_quant": nested,
        "rounded": state.rounded,
        "levels": list(layout.levels or ()),
        "nested_levels": list(layout.nested_levels or ()),
        "nested_blocksize": state.nested_blocksize,
    }
    return stored_weight(kind, tensors, layout, own=own, meta=meta, transposed=transposed)


def _eight_bits(settings: Settings, tensors: FileTensors, layer: str) -> QuantizedMatrix:
    weight, scales, form = f"{layer}.weight", f"{layer}.SCB", f"{layer}.weight_format"
    tensors.check(weight, "I8")
    shape = tensors.shape(weight)
    if len(shape) != 2:
        raise settings.refused(f"tensor '{weight}' is no matrix")
    tensors.check(scales, "F32", shape[:1])
    parts = {"codes": weight, "absmax": scales}
    if form in tensors:
        tensors.check(form, "U8")
        if tensors.read(form) != b"\0":
            raise settings.refused(f"'{form}' is not 0: the codes lie as one kind of GPU wants them, not in rows")
        parts["weight_format"] = form
    transposed = settings.config.get("model_type") in CONV1D
    store = partial(_store_eight_bits, (shape[0], shape[1]), transposed)
    nbytes = tensors.nbytes(weight) + tensors.nbytes(scales)
    return QuantizedMatrix("bitsandbytes-int8", shape[::-1] if transposed else shape, parts, nbytes, store)


def _store_eight_bits(shape: tuple[int, int], transposed: bool, parts: Mapping[str, torch.Tensor]) -> StoredWeight:
    from graftkit_models.quantized.scaled_weight import ScaledLayout
    from graftkit_models.quantized.stored import stored_weight

    layout = ScaledLayout(shape=shape, grid=shape, block=(1, shape[1]), codes="int8", factor=1 / 127)
    own = {"codes": parts["codes"], "absmax": parts["absmax"]}
    tensors = {"codes": parts["codes"], "scales": parts["absmax"].view(-1, 1)}
    return stored_weight("bitsandbytes-int8", tensors, layout, own=own, meta={}, transposed=transposed)
