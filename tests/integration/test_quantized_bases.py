"""Runs on base models whose folder holds them quantized: what is told, what is trained on, and what exports hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit import StoredWeight
from graftkit_models.huggingface import HuggingFaceSource
from integration.conftest import RecipeMaker
from integration.test_stored_quantizer import gguf_model, texts
from quantized_files import BITSANDBYTES, FORMATS, bitsandbytes_folder, quantized_folder
from safetensors.torch import load_file

LAYER = "model.layers.0.mlp.up_proj"


def base_of(form: str, folder: Path) -> Path:
    if form in BITSANDBYTES:
        return bitsandbytes_folder(folder, BITSANDBYTES[form])
    quantized_folder(folder / "m", *FORMATS[form][:2], tie_word_embeddings=True)
    return folder / "m"


@pytest.mark.parametrize(("form", "quantizer"), [("nf4-double", "stored"), ("fp8", "stored"), ("gptq", "nf4")])
def test_exports_are_of_the_dequantized_model(
    form: str, quantizer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Proved; without what the base's config.json says of quantization, and with the adapter on the file's numbers."""
    base = base_of(form, tmp_path)
    recipe = make_recipe(model=str(base), quantizer=quantizer, export=["merged", "peft"])
    planned = graftkit.plan(recipe, as_run=True)
    manifest = graftkit.run(recipe, out=tmp_path / "run").manifest
    assert manifest["status"] == "finished"
    assert all("proof" in export for export in manifest["exports"].values())
    found = HuggingFaceSource().open(str(base)).tensor(f"{LAYER}.weight")
    assert isinstance(found, StoredWeight) and found.dequantize is not None
    told = f"14 matrices that the file holds as {found.kind} are "
    told += "trained on as they lie" if quantizer == "stored" else "dequantized and stored anew by the quantizer nf4"
    for notices in (planned.notices, manifest["notices"]):
        [notice] = (notice for notice in notices if found.kind in notice)
        assert notice.startswith(told) and notice.endswith(
            "; an export of the whole model is made of their dequantized numbers"
        )
        assert ("`quantizer: stored` trains on them as they lie" in notice) == (quantizer != "stored")
    merged = tmp_path / "run" / "exports" / "merged"
    assert "quantization_config" in json.loads((base / "config.json").read_text())
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    peft = tmp_path / "run" / "exports" / "peft"
    config = json.loads((peft / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    if quantizer == "stored":
        lora = load_file(peft / "adapter_model.safetensors")
        pair = [lora[f"base_model.model.{LAYER}.lora_{part}.weight"] for part in "BA"]
        delta = pair[0] @ pair[1] * config["lora_alpha"] / config["r"]
        expected = found.dequantize().float() + delta
        stored = load_file(merged / "model.safetensors")[f"{LAYER}.weight"]
        torch.testing.assert_close(stored, expected, rtol=1e-6, atol=1e-7)
        [stage] = (stage for stage in manifest["stages"] if stage["name"] == "adapter")
        assert manifest["forecast"]["frozen_linear_bytes"] == stage["frozen_linear_bytes"]


def notices_of(recipe: Any, kind: str) -> list[str]:
    return [notice for notice in graftkit.plan(recipe, as_run=True).notices if kind in notice]


def test_a_file_that_is_stored_anew_is_told_with_its_type(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Of a GGUF file, too; with what it takes before and after."""
    recipe = make_recipe(model=gguf_model(tmp_path / "base", "Q4_1"), data=texts(tmp_path), export=[])
    [told] = notices_of({**recipe, "quantizer": "none"}, "Q4_1")
    assert told == (
        "14 matrices that the file holds as Q4_1 are dequantized and stored anew by the quantizer none, in "
        "294,912 bytes, 46,080 in the file; `quantizer: stored` trains on them as they lie"
    )
    [told] = notices_of({**recipe, "quantizer": "stored"}, "Q4_1")
    assert told == "14 matrices that the file holds as Q4_1 are trained on as they lie"


def test_matrices_that_can_not_be_kept_are_counted(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """GPT-2's, which the architecture has the other way round: `stored` holds them dense."""
    base = base_of("nf4-conv1d", tmp_path)
    recipe = make_recipe(model=str(base), quantizer="stored", adapter={"use": "lora", "targets": "all-linear"})
    [told] = notices_of({**recipe, "export": []}, "bitsandbytes-nf4")
    assert told == (
        "8 matrices that the file holds as bitsandbytes-nf4 are dequantized and stored anew by the quantizer stored, "
        "in 262,144 bytes, 36,864 in the file"
    )


def test_the_quantizer_of_the_files_own_layout_keeps_it(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """qlora asks for NF4 with double quantization, as most files of bitsandbytes are."""
    recipe = make_recipe(model=str(base_of("nf4-double", tmp_path)), adapter={"use": "qlora"}, export=[])
    recipe = {key: value for key, value in recipe.items() if key != "quantizer"}
    assert notices_of(recipe, "bitsandbytes-nf4") == [
        "14 matrices that the file holds as bitsandbytes-nf4 are trained on as they lie"
    ]
