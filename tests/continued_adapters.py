"""What a run that goes on with an adapter computes, and what peft does with the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.flow.answering.reload import reload
from graftkit.flow.preparation import base_model
from graftkit.host.host import PluginHost
from graftkit.model.packing import forward_inputs
from peft import PeftModel
from transformers import AutoModelForCausalLM


@torch.no_grad()
def computed_by_peft(base: Path | str, adapter: Path, ids: torch.Tensor, rows: int = 0) -> torch.Tensor:
    """Returns the logits that peft computes with an adapter's folder.

    Args:
        base: The base model's folder.
        adapter: The adapter's.
        ids: Token ids, `[examples, tokens]`.
        rows: To how many the embedding is resized first, if there are fewer.
    """
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows > network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(rows, mean_resizing=False)
    found: torch.Tensor = PeftModel.from_pretrained(network, adapter)(input_ids=ids).logits
    return found


@torch.no_grad()
def computed_by(source: Path, ids: torch.Tensor) -> torch.Tensor:
    """Returns the logits of a run or of an export, loaded again."""
    found: torch.Tensor = reload(str(source), PluginHost()).network(input_ids=ids).logits
    return found


def computed_at_start(monkeypatch: pytest.MonkeyPatch, ids: torch.Tensor) -> list[torch.Tensor]:
    """Returns a list that gets the logits of each run's model before its first step."""
    found: list[torch.Tensor] = []
    prepare = base_model.prepare_model

    @torch.no_grad()
    def prepare_and_look(*args: Any) -> base_model.LoadedModel:
        loaded = prepare(*args)
        found.append(loaded.model.network(**forward_inputs([ids[0]], packed=True)).logits.float())
        return loaded

    monkeypatch.setattr(base_model, "prepare_model", prepare_and_look)
    return found
