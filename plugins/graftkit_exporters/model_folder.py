"""Writes a model's folder as transformers loads it: config.json, safetensors (sharded above a size), tokenizer."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from graftkit import Tokenizer

from graftkit_exporters.config import MergedConfig

__all__ = ["TOLERANCES", "TRUSTING_NOTHING", "write_json", "write_model"]

TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""What the rounding of a stored type explains, as a share of the largest logit. Measured on SmolLM2-135M: 1.5e-6, 6e-3
and 8e-4; on tiny random models, whose logits lie close, 4 times that."""

TRUSTING_NOTHING: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
"""How transformers loads an export: it runs no code of it, asks nobody, and opens no pickle."""

_NOT_WRITTEN = {"torch_dtype", "transformers_version", "_name_or_path"}


def write_model(
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    stored: MergedConfig,
    generation: Mapping[str, Any] | None = None,
    towers: Collection[str] = (),
) -> int:
    """Writes the folder, one shard in memory at a time, and returns the bytes of its tensors.

    Args:
        folder: An existing folder.
        tensors: Every tensor by name, float32.
        config: The content of config.json.
        tokenizer: Saved beside it.
        stored: The type that tensors are stored in, and the size of a file at most.
        generation: The content of generation_config.json; none is written without any.
        towers: The names of tensors that are stored in the type that they have.
    """
    shards: list[tuple[Path, list[str]]] = []
    total = 0
    for shard in _shards(tensors, stored, towers):
        total += sum(tensor.nbytes for tensor in shard.values())
        shards.append(_write_shard(folder, len(shards), shard))
    _name_shards(folder, shards, total)
    kept = {key: value for key, value in config.items() if key not in _NOT_WRITTEN}
    write_json(folder / "config.json", {**_encoded(kept), "dtype": stored.dtype})
    if generation:
        write_json(folder / "generation_config.json", {k: v for k, v in generation.items() if k not in _NOT_WRITTEN})
    tokenizer.save(folder)
    return total


def _encoded(value: Any) -> Any:
    """Returns `{"__float__": "Infinity"}` in the place of numbers that JSON lacks, as transformers 5 reads them."""
    if isinstance(value, Mapping):
        return {key: _encoded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return {"__float__": "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    return value


def _shards(
    tensors: Iterable[tuple[str, torch.Tensor]], stored: MergedConfig, towers: Collection[str]
) -> Iterator[dict[str, torch.Tensor]]:
    limit, dtype = stored.shard_gigabytes * 1e9, getattr(torch, stored.dtype)
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        kept = name in towers or not tensor.is_floating_point()
        rounded = (tensor if kept else tensor.to(dtype)).contiguous()
        if shard and size + rounded.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = rounded
        size += rounded.nbytes
    yield shard


def _write_shard(folder: Path, number: int, shard: Mapping[str, torch.Tensor]) -> tuple[Path, list[str]]:
    from safetensors.torch import save_file

    path = folder / f"shard-{number}.safetensors"
    save_file(dict(shard), path, metadata={"format": "pt"})
    return path, list(shard)


def _name_shards(folder: Path, shards: Sequence[tuple[Path, list[str]]], total: int) -> None:
    """Gives the files the names that loaders look for, now that their number is known."""
    if len(shards) == 1:
        shards[0][0].rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        path.rename(folder / name)
        weight_map |= dict.fromkeys(names, name)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes an indented JSON file."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
