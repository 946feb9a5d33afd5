"""Finished models that are asked on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import graftkit
import pytest
import torch
from graftkit.flow.answering.reload import reload
from graftkit.testing import tiny_model_folder
from made_records import labelled_texts, written
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_takes_there_what_its_file_does(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder).to(dtype)
    model.save_pretrained(folder)
    found = reload(str(folder))
    assert {parameter.dtype for parameter in found.network.parameters()} == {dtype}
    ids = torch.arange(5, 25)
    expected = model.double()(ids.unsqueeze(0)).logits[0].detach()
    with torch.no_grad():
        logits = found.network(input_ids=ids.unsqueeze(0).cuda(), use_cache=False).logits[0].double().cpu()
    assert float((logits - expected).norm() / expected.norm()) < (1e-4 if dtype is torch.float32 else 3e-2)
    assert len(graftkit.generate(str(folder), ["a b", "c"], max_new_tokens=4, plain=True)) == 2


def test_texts_are_judged_there(tiny_model: Path, tmp_path: Path) -> None:
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(written(tmp_path / "records.jsonl", labelled_texts(40))), "holdout": 0},
        "objective": "classification",
        "training": {"steps": 2, "tokens_per_step": 256, "device": "cuda", "dtype": "float32"},
        "export": "merged",
    }
    run = graftkit.run(recipe, out=tmp_path / "run")
    merged = run.folder / "exports" / "merged"
    AutoModelForSequenceClassification.from_pretrained(merged).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (tmp_path / "half" / name).exists():
            (tmp_path / "half" / name).write_bytes((merged / name).read_bytes())
    asked = ["the film was lovely and long", "the film was awful"]
    exact, near = (graftkit.judge(str(folder), asked) for folder in (run.folder, tmp_path / "half"))
    for one, other in zip(exact, near, strict=True):
        assert one.facts["probabilities"] == pytest.approx(other.facts["probabilities"], abs=0.05)
