"""`quantizer: stored`: runs on weights as their file holds them, and those that can't be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import numpy as np
import pytest
import torch
from contracts import test_model_source_contracts as sources
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from graftkit.errors import Cancelled, ModelError
from graftkit.flow.events import Event, StepFinished
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit_gguf.source import GgufSource
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.stored import Stored
from integration.conftest import RecipeMaker
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


def gguf_model(folder: Path, type_: str) -> str:
    contract = sources.TestGguf()
    contract.type = type_
    folder.mkdir()
    return contract.sample(folder)


def texts(folder: Path) -> dict[str, Any]:
    """Returns the section of a recipe with records that need no chat template, of which these files have none."""
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps({"text": f"lamp {n} is on, lamp {n + 1} is off"}) + "\n" for n in range(40)))
    return {"train": str(path), "holdout": 0.1, "max_length": 64}


def frozen(model: Any) -> dict[str, Any]:
    return {f"{path}.weight": m.frozen for path, m in model.named_modules() if isinstance(m, FrozenLinear)}


@pytest.mark.parametrize("type_", ["Q4_1", "Q8_0", "F16"])
def test_a_run_trains_on_the_files_own_weights(type_: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Its merged export is the adapter on exactly those, its memory what the file takes for them."""
    model = gguf_model(tmp_path / "base", type_)
    recipe = make_recipe(model=model, data=texts(tmp_path), quantizer="stored", export=["merged", "peft"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["status"] == "finished"
    opened = GgufSource().open(model)
    layers = frozen(load_base_model(opened, Stored(), device=CPU))
    assert len(layers) == 14
    made = sum(weight.nbytes for weight in layers.values())
    assert made == sum(opened.tensors[name].given_bytes or 0 for name in layers)
    assert result.manifest["forecast"]["frozen_linear_bytes"] == made
    [stage] = (stage for stage in result.manifest["stages"] if stage["name"] == "adapter")
    assert stage["frozen_linear_bytes"] == made
    stored = opened.tensor("model.layers.0.mlp.up_proj.weight")
    base = stored.float() if isinstance(stored, torch.Tensor) else stored.dequantize()  # type: ignore[misc]
    [adapter] = (tmp_path / "run" / "exports" / "peft").glob("*.safetensors")
    lora = load_file(adapter)
    prefix = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    config = json.loads((adapter.parent / "adapter_config.json").read_text())
    delta = lora[f"{prefix}B.weight"] @ lora[f"{prefix}A.weight"] * config["lora_alpha"] / config["r"]
    merged = load_file(tmp_path / "run" / "exports" / "merged" / "model.safetensors")
    torch.testing.assert_close(merged["model.layers.0.mlp.up_proj.weight"], base + delta, rtol=1e-6, atol=1e-7)


def test_a_stopped_run_goes_on_as_if_it_never_had(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = gguf_model(tmp_path / "base", "Q5_0")
    recipe = make_recipe(model=model, data=texts(tmp_path), quantizer="stored")
    graftkit.run(recipe, out=tmp_path / "whole")
    cancel = graftkit.CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "parts", on_event=stop, cancel=cancel)
    graftkit.run(recipe, out=tmp_path / "parts", resume=True)
    [one], [other] = ((tmp_path / run / "adapter").glob("*.safetensors") for run in ("whole", "parts"))
    own, again = load_file(one), load_file(other)
    assert own.keys() == again.keys() and all(torch.equal(tensor, again[name]) for name, tensor in own.items())


def test_plain_weights_stay_in_their_own_types(tiny_model: Path, tmp_path: Path) -> None:
    """Each layer in the one that the file has it in, whatever the model computes in."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    types = [torch.float16, torch.bfloat16, torch.float32]
    tensors = {name: tensor.to(types[n % 3]) for n, (name, tensor) in enumerate(sorted(tensors.items()))}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for dtype in (torch.float32, torch.bfloat16):
        model = load_base_model(HuggingFaceSource().open(str(folder)), Stored(), device=CPU, dtype=dtype)
        layers = frozen(model)
        assert {weight.weight.dtype for weight in layers.values()} == set(types)
        for name, weight in layers.items():
            assert weight.weight.dtype == tensors[name].dtype and torch.equal(weight.weight, tensors[name])
        assert model.get_parameter("model.embed_tokens.weight").dtype == dtype


def test_blocks_that_can_not_be_trained_on_are_refused_before_work(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """And what to write instead is written, and works."""
    model = iq4_model(tmp_path / "base")
    recipe = make_recipe(model=model, data=texts(tmp_path), quantizer="stored")
    told = r"layers.*: its weight is stored as IQ4_NL, on which nothing can be trained as it is\nWrite `quantizer: nf4`"
    with pytest.raises(ModelError, match=told):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ModelError, match=told):
        graftkit.plan(recipe, as_run=True)
    assert graftkit.run({**recipe, "quantizer": "nf4"}, out=tmp_path / "run").manifest["status"] == "finished"


def iq4_model(folder: Path) -> str:
    """Returns a file of Q4_0 whose blocks are called IQ4_NL: of the same layout, its sixteen levels unevenly spaced."""
    path = Path(gguf_model(folder, "Q4_0"))
    assert GGML_QUANT_SIZES[GGMLQuantizationType.Q4_0] == GGML_QUANT_SIZES[GGMLQuantizationType.IQ4_NL]
    values = np.ones((1, 32), np.float32)
    assert dequantize(quantize(values, GGMLQuantizationType.Q4_0), GGMLQuantizationType.IQ4_NL).shape == (1, 32)
    data = bytearray(path.read_bytes())
    for name, tensor in GgufSource().open(str(path)).header.tensors.items():
        if tensor.type.name == "Q4_0":
            record = len(name).to_bytes(8, "little") + name.encode() + (2).to_bytes(4, "little")
            at = data.index(record) + len(record) + 16
            assert data[at : at + 4] == (2).to_bytes(4, "little")
            data[at : at + 4] = (20).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    return str(path)
