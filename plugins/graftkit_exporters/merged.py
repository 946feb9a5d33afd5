"""The whole model with the adapter merged in: a folder that transformers, vLLM and others load.

The adapter is merged into what it was trained on. Where the base was quantized that is the dequantized base: the
merged model then computes exactly what the trained one did, which merging into the original weights would not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from graftkit import TrainedModel
from torch import nn

from graftkit_exporters.config import MergedConfig
from graftkit_exporters.forward import probe_logits

__all__ = ["MergedExporter"]

_TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""Measured on SmolLM2-135M: 1.5e-6, 6e-3 and 8e-4; on tiny random models, whose logits lie close, 4 times that."""
_NOT_WRITTEN = {"torch_dtype", "transformers_version", "_name_or_path"}


class MergedExporter:
    """Writes config.json, safetensors (sharded above a size) and the tokenizer."""

    proved_with = ("transformers",)

    def __init__(self, config: MergedConfig | None = None) -> None:
        self._config = config or MergedConfig()

    def refusal(self, trained: TrainedModel) -> str | None:
        """Every adapter has a delta, so every model can be merged."""
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the folder, one shard in memory at a time."""
        shards: list[tuple[Path, list[str]]] = []
        total = 0
        for shard in self._shards(trained):
            total += sum(tensor.nbytes for tensor in shard.values())
            shards.append(_write_shard(folder, len(shards), shard))
        _name_shards(folder, shards, total)
        config = {k: v for k, v in trained.config.items() if k not in _NOT_WRITTEN}
        config["dtype"] = self._config.dtype
        _write_json(folder / "config.json", config)
        trained.tokenizer.save(folder)
        return {"format": "merged", "stored_dtype": self._config.dtype, "bytes": total}

    def _shards(self, trained: TrainedModel) -> Iterator[dict[str, torch.Tensor]]:
        limit = self._config.shard_gigabytes * 1e9
        dtype = getattr(torch, self._config.dtype)
        shard: dict[str, torch.Tensor] = {}
        size = 0
        for name, tensor in trained.merged_tensors():
            stored = tensor.to(dtype).contiguous()
            if shard and size + stored.nbytes > limit:
                yield shard
                shard, size = {}, 0
            shard[name] = stored
            size += stored.nbytes
        yield shard

    def tolerance(self) -> float:
        """Returns what the rounding of the stored type explains."""
        return _TOLERANCES[self._config.dtype]

    def logits(
        self, folder: Path, probes: Sequence[Sequence[int]], base: Callable[[], nn.Module]
    ) -> list[torch.Tensor]:
        """Loads the folder with transformers, computing in float32."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return probe_logits(model, probes)


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
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
