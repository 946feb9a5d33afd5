"""graftkit's own reading of a folder that mlx-lm quantized: what its numbers are, and how far apart levels are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from graftkit.errors import ModelError
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.model_source import TensorInfo
from safetensors import SafetensorError, safe_open

from graftkit_mlx.names import Layouts, stored_names

__all__ = ["LARGEST_JSON", "MlxFolder", "files_by_tensor"]

LARGEST_JSON = 64 << 20
"""Bytes of a file of settings at most."""

_HALVES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
"""How far apart two numbers of a type are at most, as a share of their size."""
_FLOATS = ("BF16", "F16", "F32")
_OF_THE_FORMAT = ("quantization", "quantization_config")


@dataclass(frozen=True)
class MlxFolder:
    """The weights of a quantized export, by the names that the architecture has in transformers.

    A matrix `[out, in]` is stored as whole numbers of a few bits, packed into 32 bits one after the other, and a scale
    and an offset for each group of a row: `scale * number + offset` (`mlx.core.quantize`, mode "affine").

    Args:
        folder: The export.
        layouts: The names of the architecture's tensors that mlx-lm has others for.

    Raises:
        ModelError: The folder is not as mlx-lm writes it.
    """

    folder: Path
    layouts: Layouts
    reference: str = ""
    tokenizer_backend: str = "huggingface"
    _files: dict[str, Path] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _parts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stored: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        self._files.update(files_by_tensor(self.folder))
        for path in self.files:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118
                    piece = file.get_slice(name)
                    stored[name], dtypes[name] = tuple(piece.get_shape()), piece.get_dtype()
        for name, shape in stored.items():
            base, _, kind = name.rpartition(".")
            if kind in ("scales", "biases") and f"{base}.weight" in stored:
                continue
            bits, group = self._stored_as(name)
            where = str(self._files[name])
            parts = [f"{base}.{kind}" for kind in ("scales", "biases")] if bits else [name]
            if bad := [part for part in parts if dtypes.get(part) not in _FLOATS]:
                raise ModelError(f"'{bad[0]}' is missing, or holds no numbers of {', '.join(_FLOATS)}", where=where)
            if bits and not _fit(shape, [stored[part] for part in parts], dtypes[name], bits, group):
                raise ModelError(f"'{name}' is no matrix of numbers of {bits} bits", where=where)
            self._shapes[name] = (*shape[:-1], 32 * shape[-1] // bits) if bits else shape
        for name, parts in stored_names(self._shapes, self.layouts):
            if missing := [part for part in parts if part not in self._shapes]:
                raise ModelError(f"there is no '{missing[0]}'", where=str(self.folder))
            self._parts[name] = parts

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of weights."""
        return _weights_in(self.folder)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration without what is of the format."""
        return {key: value for key, value in self._config.items() if key not in _OF_THE_FORMAT}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, as `tensor` gives it."""
        return {name: TensorInfo(self._shape(parts), "F32") for name, parts in self._parts.items()}

    def read(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields every tensor."""
        for name in self._parts:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Returns a tensor, float32, dequantized."""
        return _joined([self._dequantized(part) for part in self._parts[name]])

    def steps(self, name: str) -> torch.Tensor | None:
        """Returns how far apart the levels are that a tensor's numbers were rounded to; None where it was float32.

        What the rounding of scales, offsets and of the numbers before them adds is among that.

        Args:
            name: One of `tensors`.
        """
        found = [self._steps(part) for part in self._parts[name]]
        steps = [each for each in found if each is not None]
        return _joined(steps) if len(steps) == len(found) else None

    def save_tokenizer(self, folder: Path) -> None:
        """Is not asked of a reading."""
        raise ModelError("the weights alone are read", where=str(self.folder))

    def _shape(self, parts: Sequence[str]) -> tuple[int, ...]:
        shape = self._shapes[parts[0]]
        rows = sum(self._shapes[part][-2] for part in parts) if len(parts) > 1 else 0
        return (*shape[:-2], rows, shape[-1]) if rows else shape

    def _dequantized(self, name: str) -> torch.Tensor:
        numbers, scales, offsets = self._stored(name)
        return numbers if scales is None else (numbers * scales + offsets).flatten(-2)

    def _steps(self, name: str) -> torch.Tensor | None:
        numbers, scales, offsets = self._stored(name)
        half = _HALVES[offsets.dtype]
        if scales is None:
            return numbers.abs() * half if half > _HALVES[torch.float32] else None
        products, offsets = numbers * scales, offsets.float()
        return (scales.abs() + half * (products.abs() + offsets.abs() + (products + offsets).abs())).flatten(-2)

    def _stored(self, name: str) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Returns a tensor, float32, no scales, and it as it is stored.

        Of a quantized one: its whole numbers, `[..., groups, group]`, the scales, float32, and the offsets as they are
        stored, `[..., groups, 1]`.
        """
        bits, group = self._stored_as(name)
        weight = self._read(name)
        if not bits:
            return weight.float(), None, weight
        base = name.rpartition(".")[0]
        scales, offsets = (self._read(f"{base}.{kind}").unsqueeze(-1) for kind in ("scales", "biases"))
        return _unpacked(weight, bits).view(*scales.shape[:-1], group), scales.float(), offsets

    def _read(self, name: str) -> torch.Tensor:
        with _opened(self._files[name]) as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor

    def _stored_as(self, name: str) -> tuple[int, int]:
        """Returns the bits of a tensor's numbers, 0 where it is not quantized, and how many of them are a group."""
        path, _, kind = name.rpartition(".")
        if kind != "weight" or f"{path}.scales" not in self._files:
            return 0, 0
        said = self._config.get("quantization")
        own = said.get(path, said) if isinstance(said, dict) else None
        own = own if isinstance(own, dict) else {}
        bits, group = own.get("bits"), own.get("group_size")
        known = bits in (2, 3, 4, 5, 6, 8) and group in (32, 64, 128) and own.get("mode", "affine") == "affine"
        if not (known and isinstance(bits, int) and isinstance(group, int)):
            raise ModelError(f"it does not say how '{path}' is quantized", where=str(self.folder / "config.json"))
        return bits, group

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_json_object(self.folder / "config.json", LARGEST_JSON, ModelError)


def files_by_tensor(folder: Path) -> dict[str, Path]:
    """Returns the file of each tensor that mlx-lm loads of a folder.

    Raises:
        ModelError: A file can't be read, or two have a tensor of the same name: mlx-lm takes either, by the order in
            which the system lists files.
    """
    found: dict[str, Path] = {}
    for path in _weights_in(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                if name in found:
                    raise ModelError(f"'{name}' is in {found[name].name}, too", where=str(path))
                found[name] = path
    return found


def _weights_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("model*.safetensors")))


def _fit(packed: tuple[int, ...], parts: Sequence[tuple[int, ...]], dtype: str, bits: int, group: int) -> bool:
    """Tells whether a packed matrix, and its scales and offsets, have shapes of one matrix in groups."""
    numbers = 32 * packed[-1] if packed else 0
    groups = (*packed[:-1], numbers // bits // group)
    return dtype == "U32" and len(packed) > 1 and numbers == bits * group * groups[-1] and [*parts] == [groups] * 2


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ModelError(f"it can't be read: {error}", where=str(path)) from None


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts), dim=-2) if len(parts) > 1 else parts[0]


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Returns the numbers that lie one after the other in a row's bits, the lowest first, `[..., in]`, float32.

    Eight of them take as many bytes as one has bits.
    """
    rows = packed.contiguous().view(torch.uint8)
    bytes_ = rows.view(*rows.shape[:-1], -1, bits).to(torch.int64)
    words = torch.stack([bytes_[..., n] << (8 * n) for n in range(bits)]).sum(0)
    shifts = torch.arange(8) * bits
    return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2).float()
