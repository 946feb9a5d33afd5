"""The whole model with the adapter merged in: a folder that transformers, vLLM and others load.

The adapter is merged onto what it was trained on, unless the recipe says otherwise. Where the base was quantized that
is the dequantized base: the merged model then computes what the trained one did, which it does on no other weights.
New rows of the embeddings are in their places, and config.json says how many there are. A multimodal model's towers are
written as the base has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from graftkit import CardRequest, ExportCard, LoadedAssets, PlannedModel, ProofRequest, TrainedModel
from graftkit.exporting.cards import merged_card
from graftkit.exporting.model_folder import TOLERANCES, TRUSTING_NOTHING, load_assets, write_model
from graftkit.exporting.sentence_folder import pooling_in, write_sentence_files
from graftkit.interfaces.architecture import EMBEDDING_POOLING, load_pretrained
from graftkit.interfaces.exporter import MergeBase

from graftkit_exporters.config import MergedConfig

__all__ = ["MergedExporter"]


class MergedExporter:
    """Writes config.json, safetensors (sharded above a size) and the tokenizer."""

    proved_with = ("transformers",)
    heads = ("language", "sequence", "token", "masked", "embedding")

    def __init__(self, config: MergedConfig | None = None) -> None:
        self._config = config or MergedConfig()

    @property
    def merge_onto(self) -> MergeBase | Literal["auto"]:
        """The base that core gives `export` the merged tensors of."""
        return self._config.onto

    @property
    def merge_dtype(self) -> Literal["float32", "bfloat16", "float16"]:
        """The type that they are stored in."""
        return self._config.dtype

    def refusal(self, planned: PlannedModel) -> str | None:
        """Every adapter has a delta, so every model can be merged."""
        return None

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes the folder, one tensor in memory at a time."""
        size = write_model(
            folder,
            trained.merged_tensors(),
            trained.config,
            trained.tokenizer,
            dtype=self._config.dtype,
            shard_gigabytes=self._config.shard_gigabytes,
            generation=trained.generation_config,
            towers=trained.towers,
            processors=trained.processors,
            published=trained.published,
        )
        write_sentence_files(folder, trained.config)
        return {"format": "merged", "stored_dtype": self._config.dtype, "bytes": size}

    def tolerance(self) -> float:
        """Returns what the rounding of the stored type explains."""
        return TOLERANCES[self._config.dtype]

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the folder with transformers in the dtype that it is stored in; computes in float32.

        Vectors are made as its files for sentence-transformers say.
        """
        model = load_pretrained(request.folder, **TRUSTING_NOTHING)
        pooling = pooling_in(request.folder)
        if pooling is not None:
            setattr(model.config, EMBEDDING_POOLING, pooling)
        return request.run(model)

    def assets(self, request: ProofRequest) -> LoadedAssets:
        """Loads tokenizer, chat template and generation settings with transformers."""
        return load_assets(request, request.folder)

    def card(self, request: CardRequest) -> ExportCard:
        """Says how the export is loaded."""
        return merged_card(request)
