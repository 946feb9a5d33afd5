"""Exporters that break one promise each and keep the others."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from graftkit import ProofRequest
from graftkit_exporters.merged import MergedExporter
from safetensors.torch import load_file, save_file


class WritesZeros(MergedExporter):
    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        facts = super().export(trained, folder)
        path = folder / "model.safetensors"
        tensors = {k: torch.zeros_like(t) if "v_proj" in k else t for k, t in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        return facts


class WritesZerosAgain(WritesZeros):
    """Found out by another test."""


class WritesBesideItsFolder(MergedExporter):
    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        Path("log.txt").write_text("exported")
        return super().export(trained, folder)


class ChangesTheModel(MergedExporter):
    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        facts = super().export(trained, folder)
        with torch.no_grad():
            for adapted in trained.adapted.values():
                adapted.lora_B.zero_()
        return facts


class WritesTheTime(MergedExporter):
    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        (folder / "when.txt").write_text(f"{time.time()} {secrets.token_hex()}")
        return super().export(trained, folder)


class BlindTolerance(MergedExporter):
    def tolerance(self) -> float:
        return 1.5


class ReadsNothing(MergedExporter):
    """Keeps elsewhere what it proves itself with."""

    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        facts = super().export(trained, folder)
        shutil.copytree(folder, folder.parent / "elsewhere")
        return facts

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        return super().logits(replace(request, folder=request.folder.parent / "elsewhere"))


class AsksForWeights(MergedExporter):
    def refusal(self, planned: Any) -> str | None:
        return None if planned.adapted else "there is no adapter on it"


class MergesByItself(MergedExporter):
    """Adds up by itself what core would merge: with any base but the trained one that is something else."""

    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        deltas = {f"{path}.weight": adapted.delta() for path, adapted in trained.adapted.items()}
        tensors = [(name, tensor + deltas.get(name, 0)) for name, tensor in trained.base_tensors()]
        return super().export(_WithTensors(trained, tensors), folder)


class _WithTensors:
    def __init__(self, trained: Any, tensors: Any) -> None:
        self._trained, self._tensors = trained, tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trained, name)

    def merged_tensors(self) -> Any:
        return iter(self._tensors)


class MergesOntoSomethingElse(MergedExporter):
    merge_onto: Any = "merged"


class ForgetsTheTemplate(MergedExporter):
    def export(self, trained: Any, folder: Path) -> Mapping[str, Any]:
        facts = super().export(trained, folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_bytes())
        config.pop("chat_template", None)
        path.write_text(json.dumps(config))
        return facts
