"""A whole run on a CUDA device: exports proved, a stopped run going on, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.flow.answering.reload import reload
from safetensors.torch import load_file
from stopped_runs import run_until

pytestmark = pytest.mark.gpu


def recipe(tiny_model: Path, chat_records: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(tiny_model),
        "data": {"train": str(chat_records), "holdout": 0.1, "max_length": 128},
        "quantizer": "nf4",
        "adapter": {"use": "lora", "rank": 4, "dropout": 0.1},
        "training": {"steps": 6, "tokens_per_step": 128, "learning_rate": 1e-3, "device": "cuda", **training},
        "evaluation": {"answers": 3, "max_new_tokens": 4},
        "export": ["peft", "merged"],
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_exports_are_proved(dtype: str, tiny_model: Path, chat_records: Path, tmp_path: Path) -> None:
    result = graftkit.run(recipe(tiny_model, chat_records, dtype=dtype), out=tmp_path / "run")
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert {export["proof"]["status"] for export in manifest["exports"].values()} == {"proved"}
    answer = "".join(reload(str(result.folder)).stream("say 3", max_new_tokens=4))
    assert answer == "".join(reload(str(result.folder / "exports" / "peft")).stream("say 3", max_new_tokens=4))


def test_a_stopped_run_goes_on_to_the_same_adapter(tiny_model: Path, chat_records: Path, tmp_path: Path) -> None:
    wanted = recipe(tiny_model, chat_records)
    graftkit.run(wanted, out=tmp_path / "whole")
    run_until(3, wanted, tmp_path / "stopped")
    graftkit.run(wanted, out=tmp_path / "stopped", resume=True)
    whole, resumed = (load_file(tmp_path / name / "adapter" / "adapter.safetensors") for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-6)
