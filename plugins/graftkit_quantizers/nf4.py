"""4-bit NormalFloat, computed by bitsandbytes.

Sixteen levels at the quantiles of a normal distribution, one scale a block; with double quantization the scales
themselves are stored in 8 bits (Dettmers et al., QLoRA, 2023, https://arxiv.org/abs/2305.14314). A block never
crosses a row: rows are padded to whole blocks, so that a row can be sharded or sliced on its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import torch
from graftkit import FrozenWeight, LayerInfo, StoredWeight, check_matrix, check_tensors
from torch import nn

from graftkit_quantizers.backend import bnb
from graftkit_quantizers.config import NESTED_BLOCK, SIZES, Nf4Config
from graftkit_quantizers.kinds import BITSANDBYTES_NF4, OWN_NF4

__all__ = ["Nf4", "Nf4Weight", "stored_nf4"]

_ROUNDED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DTYPES = tuple(_ROUNDED.values())

HALF_GAP = 0.152
"""Half of the widest gap between neighbouring levels, as a share of a block's largest magnitude."""

_ZEROS = 0x77
"""The byte that stores two zeros."""


class Nf4:
    """Stores weights in NF4."""

    def __init__(self, config: Nf4Config | None = None) -> None:
        self._config = config or Nf4Config()

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Nf4Weight:
        """Stores `[out, in]`.

        Raises:
            ValueError: The weight holds NaN or infinity, or is no matrix.
        """
        check_matrix(weight)
        rows, columns = weight.shape
        size = self._config.blocksize
        padded = nn.functional.pad(weight.float(), (0, -columns % size)).contiguous()
        codes, state = bnb.quantize_4bit(
            padded, blocksize=size, compress_statistics=self._config.double_quant, quant_type="nf4"
        )
        blocks = padded.shape[1] // size
        tensors = {"codes": codes.view(rows, -1), "absmax": state.absmax.view(rows, blocks)}
        if self._config.double_quant:
            tensors["nested_absmax"] = state.state2.absmax
            tensors["nested_offset"] = state.offset.reshape(1)
        meta = {"in_features": columns, "blocksize": size, "double_quant": self._config.double_quant}
        return Nf4Weight(tensors, meta)

    def adopt(self, stored: StoredWeight, layer: LayerInfo) -> Nf4Weight | None:
        """Takes over NF4 whose blocks and scales are stored as the fields say: an `Nf4Weight`'s, or bitsandbytes' own.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        wanted = {"blocksize": self._config.blocksize, "double_quant": self._config.double_quant}
        if any(stored.meta.get(key) != value for key, value in wanted.items()):
            return None
        return stored_nf4(stored, layer)


def stored_nf4(stored: StoredWeight, layer: LayerInfo) -> Nf4Weight | None:
    """Takes over what a file holds in NF4, bit for bit.

    Returns:
        The weight, or None where it is of another kind, or bitsandbytes' own with blocks that cross rows, or with
        levels that are not those of this version.

    Raises:
        ValueError: A tensor is missing, left over, or of another shape or type.
    """
    if stored.kind == OWN_NF4:
        keys = ("blocksize", "double_quant")
        return Nf4Weight.from_state(
            stored.tensors, {**{key: stored.meta.get(key) for key in keys}, "in_features": layer.in_features}
        )
    if stored.kind != BITSANDBYTES_NF4 or not _is_usual(stored.meta):
        return None
    rows = layer.out_features
    tensors = {name: t.view(rows, -1) if name in ("codes", "absmax") else t for name, t in stored.tensors.items()}
    return Nf4Weight.from_state(tensors, stored.meta)


def _is_usual(meta: Mapping[str, Any]) -> bool:
    """Tells whether what bitsandbytes stored is what `Nf4Weight` computes with: whole blocks a row, the same levels."""
    if meta["blocksize"] not in SIZES or meta["in_features"] % meta["blocksize"]:
        return False
    cpu = torch.device("cpu")
    nested = not meta["double_quant"] or (
        meta["nested_blocksize"] == NESTED_BLOCK and meta["nested_levels"] == _dynamic_map(cpu).tolist()
    )
    return bool(nested and meta["levels"] == _levels(cpu).tolist())


class Nf4Weight(FrozenWeight):
    """A weight in NF4.

    Attributes:
        codes: uint8 `[out, in / 2]`, two levels a byte, the first in the high half.
        absmax: The scale of each block, `[out, in / blocksize]`: float32, or uint8 under double quantization.
        nested_absmax: Under double quantization the scales' scales, float32 `[scales / 256]`.
        nested_offset: And what was subtracted from the scales, float32 `[1]`.
        error_bound: Half a gap between levels, and how far scales in 8 bits may be off: where rows differ much in
            size, those of the small ones are far off, up to infinitely far.
    """

    codes: nn.Parameter
    absmax: nn.Parameter
    nested_absmax: nn.Parameter
    nested_offset: nn.Parameter

    def __init__(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        self._blocksize = int(meta["blocksize"])
        super().__init__(tensors["codes"].shape[0], int(meta["in_features"]))
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().contiguous(), requires_grad=False))
        self._double_quant = bool(meta["double_quant"])
        self._rounded = str(meta.get("rounded", "float32"))
        self.error_bound = HALF_GAP + (self._scale_error() if self._double_quant else 0.0)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns `[out, in]`."""
        codes = self.codes.detach()
        columns = codes.shape[1] * 2
        own = _ROUNDED[self._rounded]
        state = bnb.QuantState(
            absmax=self._scales(),
            shape=torch.Size((self.out_features, columns)),
            code=_levels(codes.device),
            blocksize=self._blocksize,
            quant_type="nf4",
            dtype=dtype if own == torch.float32 and dtype in _DTYPES else own,
        )
        weight: torch.Tensor = bnb.dequantize_4bit(codes.view(-1, 1), state)
        return weight[:, : self.in_features].to(dtype)

    def _scales(self) -> torch.Tensor:
        absmax = self.absmax.detach()
        if not self._double_quant:
            return absmax.view(-1)
        nested = bnb.QuantState(
            absmax=self.nested_absmax.detach(),
            code=_dynamic_map(absmax.device),
            blocksize=NESTED_BLOCK,
            dtype=torch.float32,
        )
        scales: torch.Tensor = bnb.dequantize_blockwise(absmax.view(-1), nested)
        return scales + self.nested_offset.detach()

    def _scale_error(self) -> float:
        """Returns how far scales may be off by their 8 bits, as a share of the largest weight in their row."""
        codes = self.absmax.detach()
        gaps = nn.functional.pad(_dynamic_map(codes.device).diff(), (1, 1))
        half_gaps = torch.maximum(gaps[:-1], gaps[1:]) / 2
        nested = self.nested_absmax.detach().repeat_interleave(NESTED_BLOCK)[: codes.numel()].view_as(codes)
        off = half_gaps[codes.int()] * nested
        largest = (self._scales().view_as(codes) - off).amax(1).clamp(min=0)  # at least
        filled = self.codes.detach().ne(_ZEROS).any(1)  # a row of zeros needs no scale
        return float(torch.where(filled, off.amax(1) / largest, 0.0).nan_to_num(0.0, torch.inf).max())

    def meta(self) -> dict[str, Any]:
        """Returns the width, the block's size, whether scales are quantized, and what numbers are rounded to."""
        return {
            "in_features": self.in_features,
            "blocksize": self._blocksize,
            "double_quant": self._double_quant,
            **({"rounded": self._rounded} if self._rounded != "float32" else {}),
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """Builds a weight from `state()` and `meta()`.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape or type.
        """
        rows = tensors["codes"].shape[0] if "codes" in tensors else 0
        blocks = -(-int(meta["in_features"]) // int(meta["blocksize"]))
        double = bool(meta["double_quant"])
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "codes": (torch.uint8, (rows, blocks * int(meta["blocksize"]) // 2)),
            "absmax": (torch.uint8 if double else torch.float32, (rows, blocks)),
        }
        if double:
            expected["nested_absmax"] = (torch.float32, (-(-rows * blocks // NESTED_BLOCK),))
            expected["nested_offset"] = (torch.float32, (1,))
        check_tensors(tensors, expected)
        if meta.get("rounded", "float32") not in _ROUNDED:
            raise ValueError(f"numbers can't be rounded to {meta['rounded']!r}")
        return cls(tensors, meta)


@cache
def _levels(device: torch.device) -> torch.Tensor:
    """Returns NF4's 16 levels, once a device: dequantizing uploads nothing."""
    levels: torch.Tensor = bnb.get_4bit_type("nf4", device=device)
    return levels


@cache
def _dynamic_map(device: torch.device) -> torch.Tensor:
    """Returns the 256 levels of bitsandbytes' 8-bit dynamic map, once a device."""
    levels: torch.Tensor = bnb.create_dynamic_map().to(device)
    return levels
