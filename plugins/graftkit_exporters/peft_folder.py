"""The adapter alone, in PEFT's format: adapter_config.json and adapter_model.safetensors.

Keys are `base_model.model.<layer>.<tensor>`, as PEFT writes them for a wrapped causal language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from graftkit import TrainedModel
from graftkit.errors import ExportError
from torch import nn

from graftkit_exporters.forward import probe_logits

__all__ = ["PeftExporter", "target_modules"]


class PeftExporter:
    """Writes what `PeftModel.from_pretrained` loads."""

    proved_with = ("peft",)

    def refusal(self, trained: TrainedModel) -> str | None:
        """Says so where PEFT has no form of the adapter."""
        return None if trained.adapter.peft_config() is not None else "PEFT has no form of this adapter"

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the adapter and the tokenizer that it was trained with."""
        from safetensors.torch import save_file

        tensors = {
            f"base_model.model.{layer}.{key}": tensor.cpu().contiguous()
            for layer, adapted in trained.adapted.items()
            for key, tensor in trained.adapter.peft_tensors(adapted).items()
        }
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            **(trained.adapter.peft_config() or {}),
            "target_modules": target_modules(trained.adapted, trained.linear_layers),
            "base_model_name_or_path": trained.reference,
            "revision": None,
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        trained.tokenizer.save(folder)
        return {"format": "peft", "tensors": len(tensors)}

    def tolerance(self) -> float:
        """Adapter tensors are stored in float32: nothing is rounded."""
        return 1e-5

    def logits(
        self, folder: Path, probes: Sequence[Sequence[int]], base: Callable[[], nn.Module]
    ) -> list[torch.Tensor]:
        """Loads the folder with peft onto the base model, and makes sure that peft took every tensor.

        Raises:
            ExportError: A tensor was left over: peft itself says nothing about those.
        """
        from peft import PeftModel, get_peft_model_state_dict
        from safetensors import safe_open

        model = PeftModel.from_pretrained(base(), folder)
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
        taken = set(get_peft_model_state_dict(model))
        if stored != taken:
            odd = sorted(stored ^ taken)
            raise ExportError(f"peft and the file disagree on {len(odd)} tensors, such as {odd[0]}", where=str(folder))
        return probe_logits(model, probes)


def target_modules(adapted: Iterable[str], linear: Iterable[str]) -> list[str]:
    """Returns the shortest list that means just these layers to PEFT, which compares the ends of paths.

    Example:
        >>> target_modules(["l.0.q", "l.1.q"], ["l.0.q", "l.0.k", "l.1.q", "l.1.k"])
        ['q']
    """
    chosen = set(adapted)
    names = {layer.rpartition(".")[2] for layer in chosen}
    meant = {layer for layer in linear if layer.rpartition(".")[2] in names}
    return sorted(names if meant == chosen else chosen)
