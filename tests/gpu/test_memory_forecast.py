"""On a CUDA device the memory forecast is what torch then holds."""

from __future__ import annotations

from pathlib import Path

import graftkit
import pytest
import torch
from graftkit.flow.memory.forecast_memory import forecast_memory
from graftkit.testing import tiny_model_folder

pytestmark = pytest.mark.gpu

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 8000,
    "max_position_embeddings": 2048,
}
SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
}


@pytest.mark.parametrize(("quantizer", "dtype"), [("none", "float32"), ("nf4", "bfloat16"), ("int8", "bfloat16")])
def test_the_forecast_is_within_a_tenth(quantizer: str, dtype: str, tmp_path: Path) -> None:
    records = tmp_path / "records.txt"
    records.write_text("the quick brown fox " * 2000)
    simulated = torch.cuda.get_device_name() == "simulated"
    shape, tokens = (SMALL, 1024) if simulated else (SHAPE, 2048)
    recipe = {
        "model": str(tiny_model_folder(tmp_path / "model", **shape)),
        "data": {"train": str(records), "holdout": 0, "max_length": 512},
        "quantizer": quantizer,
        "training": {"steps": 2, "tokens_per_step": tokens, "microbatch_tokens": tokens, "device": "cuda"}
        | {"dtype": dtype},
    }
    memory = graftkit.run(recipe, out=tmp_path / "run").manifest["memory"]
    plan = graftkit.plan(recipe, as_run=True)
    assert plan.ask_memory is not None
    told = next(s for s in forecast_memory(plan.ask_memory(plan.bound)).stages if s.stage == "training")
    assert told.device == pytest.approx(memory["measured"]["device"]["training"], rel=0.1)
