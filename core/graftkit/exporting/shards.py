"""Weights in safetensors files of limited size, with one tensor in memory at a time.

safetensors itself takes all of a file's tensors at once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from graftkit.interfaces.json_file import write_json

__all__ = ["save_tensors", "write_shards"]

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""safetensors' names of types."""

_COPIED = 16 << 20
"""Bytes that are copied at a time."""


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, about: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the permissions of a new file: the library's own can be read by its user alone.

    Args:
        tensors: The tensors by their names, each contiguous.
        path: The file.
        about: What its header says besides.

    Raises:
        OSError: The system refused, or
        safetensors.SafetensorError: likewise.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=dict(about) if about else None)
    path.chmod(mode)


def write_shards(
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    shard_gigabytes: float = 5.0,
) -> int:
    """Writes tensors as `model.safetensors`, or as shards with an index, and returns their bytes.

    Args:
        folder: An existing folder.
        tensors: Every tensor by name, on the CPU, in the type that it is stored in.
        shard_gigabytes: The size of a file at most.
    """
    limit = shard_gigabytes * 1e9
    with ExitStack() as unfinished:  # a tensor that can't be made leaves no file open
        shards = [_Shard(folder, 0, unfinished)]
        for name, tensor in tensors:
            if shards[-1].size and shards[-1].size + tensor.nbytes > limit:
                shards[-1].close()
                shards.append(_Shard(folder, len(shards), unfinished))
            shards[-1].add(name, tensor.contiguous())
        shards[-1].close()
    total = sum(shard.size for shard in shards)
    _name(folder, shards, total)
    return total


def _name(folder: Path, shards: Sequence[_Shard], total: int) -> None:
    """Gives the files the names that loaders look for, now that their number is known."""
    if len(shards) == 1:
        shards[0].path.rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard.path.rename(folder / name)
        weight_map |= dict.fromkeys(shard.names, name)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


class _Shard:
    """A safetensors file whose tensors are written as they come; its header, which stands first, comes last.

    Args:
        folder: Where to write.
        number: Its number among the shards.
        unfinished: Closes what is open when it ends.
    """

    def __init__(self, folder: Path, number: int, unfinished: ExitStack) -> None:
        self.path = folder / f"shard-{number}.safetensors"
        self._data = unfinished.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        self._entries: list[tuple[str, torch.dtype, list[int], int, int]] = []
        self.size = 0

    @property
    def names(self) -> list[str]:
        """The names of its tensors."""
        return [entry[0] for entry in self._entries]

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Writes one tensor."""
        self._entries.append((name, tensor.dtype, list(tensor.shape), self.size, tensor.nbytes))
        self._data.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        self.size += tensor.nbytes

    def close(self) -> None:
        """Writes the file. The largest types come first, so that each tensor starts at a multiple of its own."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        ordered = sorted(self._entries, key=lambda entry: -entry[1].itemsize)
        end = 0
        for name, dtype, shape, _, size in ordered:
            header[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with self._data, self.path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, _, _, start, size in ordered:
                self._data.seek(start)
                for left in range(size, 0, -_COPIED):
                    file.write(self._data.read(min(left, _COPIED)))
