"""Other architectures through the whole flow: what is measured and proved is transformers' own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.store.token_store import TokenStore
from graftkit.testing import tiny_model_folder
from integration.conftest import RecipeMaker
from reference import reference_loss
from transformers import AutoModelForCausalLM

WINDOW = 16
"""Shorter than any example of the fixture's rows."""
SHAPES: dict[str, tuple[dict[str, Any], bool]] = {
    "mistral": ({"model_type": "mistral", "sliding_window": WINDOW}, True),
    "phi3": ({"model_type": "phi3", "sliding_window": WINDOW, "pad_token_id": 0}, True),
    "starcoder2": ({"model_type": "starcoder2", "sliding_window": WINDOW}, True),
    "gemma3": (
        {"model_type": "gemma3_text", "sliding_window": WINDOW, "num_hidden_layers": 6, "pad_token_id": 0},
        True,
    ),
    "gemma2": (
        {"model_type": "gemma2", "sliding_window": WINDOW, "query_pre_attn_scalar": 16, "pad_token_id": 0},
        True,
    ),
    "lfm2": ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "pad_token_id": 0}, False),
}


def eager(folder: Path) -> Any:
    """Loads a model with its own eager code."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    )


@pytest.mark.parametrize("name", SHAPES)
def test_another_architecture_is_trained_as_it_is_and_proved(
    name: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    config, packed = SHAPES[name]
    model = tiny_model_folder(tmp_path / "model", **config)
    result = graftkit.run(make_recipe(model=str(model), export=["peft", "merged"]), out=tmp_path / "run")
    manifest = result.manifest
    assert manifest["sequences"]["packed"] is packed, manifest["sequences"]
    assert packed or any("one by one" in notice and "passes" in notice for notice in manifest["notices"])
    store = TokenStore.load(result.folder / "tokens" / "holdout.safetensors")
    assert store.lengths.max() > WINDOW
    before, after = result.before, result.after
    assert before is not None and after is not None
    assert before.holdout_loss == pytest.approx(reference_loss(eager(model), store), rel=1e-4)
    assert after.holdout_loss == pytest.approx(reference_loss(eager(result.exports["merged"]), store), rel=1e-4)
    assert after.holdout_loss < before.holdout_loss
    for facts in manifest["exports"].values():
        assert facts["proof"]["status"] == "proved" and facts["proof"]["top1_agreement"] == 1
        assert facts["proof"]["coverage"]["longest"] == store.lengths.max()
