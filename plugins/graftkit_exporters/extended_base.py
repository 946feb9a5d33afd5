"""A base model with the new vocabulary, and a plain adapter beside it.

Servers that load adapters (vLLM, llama.cpp) refuse rows of embeddings in them. Here the rows are part of the base:
`base/` is a whole model without the adapter, `adapter/` what PEFT and those servers load onto it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadedAssets, LoadingExample, PlannedModel, ProofRequest, TrainedModel
from graftkit.exporting.cards import vllm_examples
from graftkit.exporting.config import FolderConfig
from graftkit.exporting.model_folder import TOLERANCES, TRUSTING_NOTHING, load_assets, save_tokenizer, write_model
from graftkit.exporting.peft_folder import load_adapter, no_adapter, write_adapter
from graftkit.interfaces.architecture import load_pretrained

__all__ = ["ExtendedBaseExporter"]


class ExtendedBaseExporter:
    """Writes `base/` and `adapter/`."""

    proved_with = ("peft", "transformers")

    def __init__(self, config: FolderConfig | None = None) -> None:
        self._config = config or FolderConfig()

    def refusal(self, planned: PlannedModel) -> str | None:
        """Says so where there is no new vocabulary, or PEFT has no form of the adapter."""
        if planned.change is None:
            return "the vocabulary is the base model's: peft writes the adapter alone"
        return no_adapter(planned)

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes both folders, the tokenizer in each."""
        base, adapter = folder / "base", folder / "adapter"
        base.mkdir()
        adapter.mkdir()
        size = write_model(
            base,
            trained.base_tensors(),
            trained.config,
            trained.tokenizer,
            dtype=self._config.dtype,
            shard_gigabytes=self._config.shard_gigabytes,
            generation=trained.generation_config,
            towers=trained.towers,
            processors=trained.processors,
            published=trained.published,
        )
        facts = write_adapter(trained, adapter, "../base", new_rows=False)
        save_tokenizer(trained.tokenizer, adapter, trained.config)
        return {"format": "extended-base", "stored_dtype": self._config.dtype, "bytes": size, **facts}

    def tolerance(self) -> float:
        """Returns what the rounding of the base's stored type explains."""
        return TOLERANCES[self._config.dtype]

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the base with transformers and the adapter with peft as they are stored; computes in float32."""
        model = load_pretrained(request.folder / "base", **TRUSTING_NOTHING)
        return request.run(load_adapter(model, request.folder / "adapter").get_base_model())

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Loads tokenizer, chat template and generation settings of the base with transformers."""
        return load_assets(request, request.folder / "base")

    def card(self, request: CardRequest) -> ExportCard:
        """Says how the export is loaded."""
        load = "\n".join(
            [
                'tokenizer = AutoTokenizer.from_pretrained("base")',
                'model = AutoModelForCausalLM.from_pretrained("base", dtype="auto")',
                'model = PeftModel.from_pretrained(model, "adapter")',
            ]
        )
        python = request.python(
            ["from peft import PeftModel", "from transformers import AutoModelForCausalLM, AutoTokenizer"], load
        )
        loading = [LoadingExample("peft", "python", python)]
        loading += vllm_examples("./base", request.folder / "adapter", "./adapter")
        return ExportCard("peft", "finetune", loading=loading)
