"""The whole model with the adapter merged in, as mlx-lm loads it: for Macs, and what is built on MLX there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from graftkit import (
    CardRequest,
    ExportCard,
    ExportReading,
    LoadedAssets,
    LoadingExample,
    PlannedModel,
    ProofRequest,
    TrainedModel,
)
from graftkit.errors import ExportError
from graftkit.exporting.model_folder import TOLERANCES, load_assets, write_model
from graftkit.interfaces.json_file import read_json_object, write_json

from graftkit_mlx.child import ask, mlx_is_there
from graftkit_mlx.config import GROUP_SIZE, MlxConfig
from graftkit_mlx.names import are_layouts, layouts_of, unread
from graftkit_mlx.program import compute_logits
from graftkit_mlx.reading import LARGEST_JSON, MlxFolder, files_by_tensor
from graftkit_mlx.settings import mlx_settings
from graftkit_mlx.trial import trial_of, window_notices

__all__ = ["MlxExporter"]

_LAYOUTS = "transformers_names.json"
"""Says which of the architecture's tensors have other names in mlx-lm, for the proof: mlx-lm does not read it."""
_LEAST = 5e-3
"""What mlx-lm rounds besides weights, as a share of the largest logit: Gemma's scale of embeddings."""


class MlxExporter:
    """Writes config.json, safetensors and the tokenizer, as `mlx_lm.convert` does."""

    proved_with = ("mlx_lm", "mlx")

    def __init__(self, config: MlxConfig | None = None) -> None:
        self._config = config or MlxConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only what mlx-lm computes as transformers does, which is tried on a twin, has a form."""
        if not mlx_is_there():
            return "mlx-lm, which writes it, is not installed: pip install 'graftkit[mlx]'"
        trial = trial_of(planned)
        if trial.refusal is None and self.quantizes and (odd := unread(trial.made)):
            return (
                f"of some tensors, such as {odd[0]}, mlx-lm makes others, which are not compared one by one yet: take "
                "bits: null"
            )
        return trial.refusal

    def notices(self, planned: PlannedModel) -> Sequence[str]:
        """Says where mlx-lm has no windows."""
        return window_notices(planned)

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the folder. A quantized one takes room for the model in 16 bits meanwhile, on the same disk."""
        whole = folder / "unquantized" if self.quantizes else folder
        whole.mkdir(exist_ok=True)
        size = write_model(
            whole,
            trained.merged_tensors(),
            mlx_settings(trained.config),
            trained.tokenizer,
            dtype=self._config.dtype,
            shard_gigabytes=self._config.shard_gigabytes,
            generation=trained.generation_config,
            published=trained.published,
        )
        facts = {"format": "mlx", "stored_dtype": self._config.dtype, "bits": self._config.bits}
        if not self.quantizes:
            return {**facts, "bytes": size}
        group = self._config.group_size or GROUP_SIZE
        told = ask("quantize", whole, whole, bits=self._config.bits, group_size=group, target=str(folder))
        said = dict.fromkeys(("quantization", "quantization_config"), told["quantization"])
        write_json(folder / "config.json", read_json_object(whole / "config.json", LARGEST_JSON, ExportError) | said)
        if layouts := layouts_of(trial_of(trained).made):
            write_json(folder / _LAYOUTS, layouts)
        for path in whole.iterdir():
            if not path.name.startswith("model") and path.name != "config.json":
                path.rename(folder / path.name)
        shutil.rmtree(whole)
        size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
        return {**facts, "group_size": group, "bytes": size}

    def tolerance(self) -> float:
        """Returns what the rounding of the stored type explains, or of mlx-lm, weights being as they are stored."""
        return _LEAST if self.quantizes else max(_LEAST, TOLERANCES[self._config.dtype])

    @property
    def quantizes(self) -> bool:
        """Whether matrices are stored in few bits."""
        return self._config.bits is not None

    def reading(self, request: ProofRequest) -> ExportReading:
        """Returns graftkit's own reading of the folder."""
        path = request.folder / _LAYOUTS
        layouts = read_json_object(path, LARGEST_JSON, ExportError) if path.is_file() else {}
        if not are_layouts(layouts):
            raise ExportError("it does not give lists of names", where=str(path))
        files = MlxFolder(request.folder, layouts)
        return ExportReading(files, files.steps)

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the folder with mlx-lm; computes in float32 with the weights as they are stored."""
        if not files_by_tensor(request.folder):
            raise ExportError("there is no model*.safetensors", where=str(request.folder))
        return compute_logits(request.folder, request)

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Loads tokenizer, chat template and generation settings with transformers, as mlx-lm does."""
        return load_assets(request, request.folder)

    def card(self, request: CardRequest) -> ExportCard:
        """Says how mlx-lm runs the folder."""
        commands = 'mlx_lm.generate --model . --prompt "Hello"\nmlx_lm.server --model .'
        tags = ["mlx", *([f"{self._config.bits}-bit"] if self.quantizes else [])]
        return ExportCard(
            "mlx",
            "quantized" if self.quantizes else "finetune",
            tags=tags,
            loading=[LoadingExample("mlx-lm", "sh", commands)],
        )
