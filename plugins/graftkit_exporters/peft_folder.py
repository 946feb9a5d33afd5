"""The adapter alone, in PEFT's format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadedAssets, PlannedModel, ProofRequest, TrainedModel
from graftkit.exporting.cards import peft_card
from graftkit.exporting.model_folder import load_tokenizer, save_tokenizer
from graftkit.exporting.peft_folder import load_adapter, no_adapter, resized, write_adapter
from graftkit.interfaces.peft_config import check_adapter_config

__all__ = ["PeftExporter"]


class PeftExporter:
    """Writes what `PeftModel.from_pretrained` loads."""

    proved_with = ("peft",)
    heads = ("language", "sequence", "token", "masked", "embedding")

    def refusal(self, planned: PlannedModel) -> str | None:
        """Says so where PEFT has no form of the adapter, or of what became of the vocabulary."""
        if planned.change and planned.change.moves_ids:
            return (
                "tokens of the base model have other ids now, which an adapter can't tell PEFT: "
                "export merged or extended-base"
            )
        if planned.unties and planned.change:
            return (
                "its output layer has other rows than the embedding, which the base model ties, and PEFT would tie "
                "them, too: export merged"
            )
        return no_adapter(planned)

    def notices(self, planned: PlannedModel) -> list[str]:
        """Says so where peft's own merge makes something else of the model than the adapter does."""
        if not planned.unties or planned.change:
            return []
        return [
            "the base model ties output layer and embedding, of which one is adapted: peft computes the adapter "
            "rightly, and its merge_and_unload would change both: take the export merged for that"
        ]

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the adapter, new rows alone where the vocabulary grew, and the tokenizer that it was trained with."""
        facts = write_adapter(trained, folder, trained.reference, new_rows=True)
        save_tokenizer(trained.tokenizer, folder, trained.config)
        return {"format": "peft", **facts}

    def tolerance(self) -> float:
        """Adapter tensors are stored in float32: nothing is rounded."""
        return 1e-5

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the folder with peft onto the base model, and makes sure that peft took every tensor.

        Where the vocabulary grew, the base model is resized first, as docs/tokenizers.md tells users to.

        Raises:
            ExportError: A tensor was left over: peft itself says nothing about those.
        """
        folder = request.folder
        check_adapter_config(folder)  # before a base model is loaded
        return request.run(load_adapter(resized(request.base(), folder), folder).get_base_model())

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Loads the tokenizer beside the adapter with transformers; generation settings are the base model's."""
        return request.assets(load_tokenizer(request.folder))

    def card(self, request: CardRequest) -> ExportCard:
        """Says how the export is loaded."""
        return peft_card(request)
