"""The file that `llama.cpp --lora` loads: written, and judged before llama.cpp sees it.

Each adapted weight has two tensors, `NAME.lora_a [rank, in]` and `NAME.lora_b [out, rank]`; of the embedding
`lora_a [tokens, rank]`, whose rows are looked up, and `lora_b [hidden, rank]`. What llama.cpp reads of the metadata,
and how it scales, its `src/llama-adapter.cpp` says, and what it computes of an embedding `src/llama-graph.cpp`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graftkit.errors import ExportError

from graftkit_gguf.file_writer import StoredTensor, write_gguf
from graftkit_gguf.header import GgufHeader, GgufTensor, read_header
from graftkit_gguf.lora_layers import TOKEN_EMBEDDING
from graftkit_gguf.metadata import Metadata
from graftkit_gguf.quantize import quantize_rows

__all__ = ["check_adapter", "check_fits", "write_adapter"]

_ALPHA = "adapter.lora.alpha"
_KEYS = {"general.architecture", "general.type", "adapter.type", _ALPHA}
_FLOAT32 = 6
_NUMBERS: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_PARTS = (".lora_a", ".lora_b")
_AGAIN = "Export it again, or take the export from where it came from."


def write_adapter(
    path: Path, architecture: str, alpha: float, layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], type_: str
) -> int:
    """Writes an adapter and returns the bytes of its tensors.

    Args:
        path: The file to write.
        architecture: The value of `general.architecture`.
        alpha: llama.cpp scales each layer by this over the layer's rank.
        layers: Each weight's name in the file -> `lora_a` and `lora_b` as they are stored, float32.
        type_: "f32" or "f16".

    Raises:
        ExportError: A number is too large for the type.
    """
    metadata = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        _ALPHA: alpha,
    }
    return write_gguf(path, metadata, _stored(layers, type_))


def _stored(layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], type_: str) -> Iterator[StoredTensor]:
    for name, pair in layers.items():
        for part, tensor in zip(_PARTS, pair, strict=True):
            largest = tensor.abs().max().item()
            if type_ == "f16" and not largest <= torch.finfo(torch.float16).max:
                raise ExportError(
                    f"the adapter of {name} has a number of {largest:.3g}, which float16 does not hold",
                    hint="Export it with type: f32.",
                )
            yield f"{name}{part}", tuple(tensor.shape), type_, quantize_rows(tensor.float(), type_).numpy()


def check_adapter(path: Path) -> GgufHeader:
    """Reads an adapter's header and judges all of the file: llama.cpp ends the process over some of what is refused.

    Raises:
        ModelError: The file is missing, truncated or malformed, or is not in the form that `write_adapter` writes.
        ExportError: A tensor has no partner, is of another shape or type, or holds what is no number.
    """
    header = read_header(path)
    metadata = Metadata(path, header.metadata)
    if metadata.text("general.type", "model") != "adapter" or metadata.text("adapter.type", "none") != "lora":
        raise _refused(path, "it is a GGUF file, but no LoRA adapter")
    odd = sorted(_KEYS ^ header.metadata.keys())
    if odd:
        raise _refused(path, f"its metadata lacks, or has besides what an adapter has, {odd[0][:80]!r}")
    metadata.text("general.architecture")
    metadata.positive(_ALPHA)
    if not _has_float32_alpha(header):
        raise _refused(path, f"its {_ALPHA} is no float32")
    for name, tensor in header.tensors.items():
        _check_pair(header, name, tensor)
    _check_numbers(header)
    return header


def check_fits(adapter: GgufHeader, base: GgufHeader) -> None:
    """Compares an adapter with the base model that it goes on.

    Raises:
        ExportError: The base is of another architecture, or has no such weight.
    """
    mine, theirs = (header.metadata.get("general.architecture") for header in (adapter, base))
    if mine != theirs:
        raise _refused(adapter.path, f"it is made for the architecture {mine!r}, the base model is {theirs!r}")
    for name, tensor in adapter.tensors.items():
        stem = name.rpartition(".")[0]
        weight = base.tensors.get(stem)
        if weight is None or len(weight.shape) != 2:
            raise _refused(adapter.path, f"the base model has no matrix {stem!r}, which it adapts")
        first = name.endswith(_PARTS[0])
        places = ((1, 1) if first else (1, 0)) if stem == TOKEN_EMBEDDING else ((0, 0) if first else (1, 1))
        own, other = tensor.shape[places[0]], weight.shape[places[1]]
        if own != other:
            raise _refused(adapter.path, f"its {name!r} has the size {own:,} where the base model has {other:,}")


def _check_pair(header: GgufHeader, name: str, tensor: GgufTensor) -> None:
    stem, _, part = name.rpartition(".")
    other = header.tensors.get(f"{stem}.{'lora_b' if part == 'lora_a' else 'lora_a'}")
    if f".{part}" not in _PARTS or other is None:
        raise _refused(header.path, f"the tensor {name!r} is no half of a pair lora_a, lora_b")
    if tensor.type.name not in _NUMBERS or len(tensor.shape) != 2 or len(other.shape) != 2:
        raise _refused(header.path, f"the tensor {name!r} is no matrix of float32 or float16")
    place = 0 if stem == TOKEN_EMBEDDING else 1
    rank = (tensor.shape[place], other.shape[0]) if part == "lora_a" else (tensor.shape[0], other.shape[place])
    if rank[0] != rank[1]:
        raise _refused(header.path, f"the tensors of {stem!r} have the ranks {rank[0]:,} and {rank[1]:,}")


def _has_float32_alpha(header: GgufHeader) -> bool:
    """Tells whether alpha is stored as float32: of another type llama.cpp ends the process."""
    key = _ALPHA.encode()
    record = struct.pack("<Q", len(key)) + key + struct.pack("<I", _FLOAT32)
    start = min((tensor.offset for tensor in header.tensors.values()), default=header.state.size)
    with header.path.open("rb") as file:
        return record in file.read(start)


def _check_numbers(header: GgufHeader) -> None:
    with header.path.open("rb") as file:
        for name, tensor in header.tensors.items():
            file.seek(tensor.offset)
            if not np.isfinite(np.frombuffer(file.read(tensor.nbytes), _NUMBERS[tensor.type.name])).all():
                raise _refused(header.path, f"the tensor {name!r} holds values that are infinite or no numbers")


def _refused(path: Path, message: str) -> ExportError:
    return ExportError(message, where=str(path), hint=_AGAIN)
