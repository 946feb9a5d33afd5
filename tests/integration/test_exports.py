"""What a run exports, loaded by the real peft and the real transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.errors import ExportError, GraftkitError, RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.flow.exports.proof import prove
from graftkit.model.dense_model import load_dense_model
from graftkit.testing import tiny_model_folder
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.int8 import Int8
from graftkit_quantizers.nf4 import Nf4
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

QUANTIZERS = {"none": Dense(), "int8": Int8(), "nf4": Nf4()}
IDS = torch.tensor([[257, 40, 41, 42, 43, 99, 101, 7, 7, 7, 255, 12]])


@pytest.fixture(scope="module", params=QUANTIZERS)
def finished(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of each quantizer; lora and qlora in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = folder / "records.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+{n}=", "completion": str(2 * n)}) + "\n" for n in range(40)))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(rows), "max_length": 64},
        "quantizer": request.param,
        "adapter": {"use": "qlora" if request.param == "int8" else "lora", "rank": 4, "targets": ["*_proj"]},
        "training": {"steps": 8, "tokens_per_step": 200, "learning_rate": 3e-2, "device": "cpu"},
        "export": ["peft", "merged", {"use": "merged", "name": "half", "dtype": "bfloat16"}],
    }
    return request.param, graftkit.run(recipe, out=folder / "run")


@torch.no_grad()
def trained_logits(result: graftkit.RunResult) -> torch.Tensor:
    logits: torch.Tensor = reload(str(result.folder)).network(input_ids=IDS).logits
    return logits


@torch.no_grad()
def test_peft_loads_the_adapter_and_computes_what_was_trained(finished: Any, tiny_model: Path) -> None:
    from peft import PeftModel

    name, result = finished
    base = load_dense_model(HuggingFaceSource().open(str(tiny_model)), QUANTIZERS[name])
    expected, untouched = trained_logits(result), base(input_ids=IDS).logits
    model = PeftModel.from_pretrained(base, result.exports["peft"])
    assert (model(input_ids=IDS).logits - expected).abs().max() < 1e-4
    assert (untouched - expected).abs().max() > 1e-2, "training changed nothing: the test shows nothing"


@torch.no_grad()
def test_transformers_loads_the_merged_model_and_computes_what_was_trained(finished: Any) -> None:
    _, result = finished
    model = AutoModelForCausalLM.from_pretrained(result.exports["merged"], dtype=torch.float32)
    assert (model(input_ids=IDS).logits - trained_logits(result)).abs().max() < 1e-4


def test_every_export_was_proved_in_a_process_of_its_own(finished: Any) -> None:
    _, result = finished
    proofs = {name: facts["proof"] for name, facts in result.manifest["exports"].items()}
    assert {proof["status"] for proof in proofs.values()} == {"proved"}
    assert proofs["peft"]["max_abs_diff"] < 1e-4 and proofs["merged"]["max_abs_diff"] < 1e-4
    assert proofs["half"]["max_abs_diff"] > 1e-4


def test_the_exported_tokenizer_gives_the_same_ids(finished: Any) -> None:
    _, result = finished
    theirs = AutoTokenizer.from_pretrained(result.exports["merged"])
    ours = reload(str(result.folder)).tokenizer
    for text in ("2+2=4", "Grüße 🙂\n\tx", "  spaces  "):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)


@torch.no_grad()
def test_run_and_exports_answer_alike(finished: Any) -> None:
    _, result = finished
    answers = {
        "".join(reload(str(folder)).stream("7+7=", plain=True, max_new_tokens=12))
        for folder in (result.folder, result.exports["peft"], result.exports["merged"])
    }
    assert len(answers) == 1


def test_an_export_that_computes_something_else_does_not_pass(finished: Any, tmp_path: Path) -> None:
    _, result = finished
    for name, file in (("peft", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        folder = shutil.copytree(result.exports[name], tmp_path / name)
        tensors = load_file(folder / file)
        first = next(key for key in tensors if "v_proj" in key)
        save_file({**tensors, first: tensors[first] + 0.05}, folder / file, metadata={"format": "pt"})
        with pytest.raises(ExportError, match="something else than what was trained"):
            prove(folder, result.folder / "probes.safetensors")


def test_a_peft_tensor_that_peft_would_silently_ignore_does_not_pass(finished: Any, tmp_path: Path) -> None:
    _, result = finished
    folder = shutil.copytree(result.exports["peft"], tmp_path / "peft")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    save_file(
        {**tensors, first.replace("layers.0", "layers.9"): tensors[first].clone()}, path, metadata={"format": "pt"}
    )
    with pytest.raises(ExportError, match="disagree on 1 tensors"):
        prove(folder, result.folder / "probes.safetensors")


def test_shards_load_as_one_model(make_recipe: Any, tmp_path: Path) -> None:
    export = {"use": "merged", "shard_gigabytes": 0.0002}
    result = graftkit.run(make_recipe(export=[export]), out=tmp_path / "run")
    files = sorted(path.name for path in result.exports["merged"].glob("*.safetensors"))
    assert len(files) > 1 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"


def refused(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a recipe that names a form which its model does not have; no weight is loaded, no folder stays."""
    monkeypatch.setattr("graftkit.model.load.Loader.load", lambda *args, **named: pytest.fail("loaded"))
    with pytest.raises(RecipeError) as caught:
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return str(caught.value)


def test_an_adapter_that_peft_has_no_form_of_is_refused_before_a_weight_is_loaded(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit_adapters.lora.Lora.peft_config", lambda self: None)
    message = refused(make_recipe(export=["merged", "peft"]), tmp_path, monkeypatch)
    assert message.startswith("recipe.export.1: the export 'peft' can't be written: PEFT has no form of this adapter")


def test_ids_that_move_are_refused_for_peft_before_a_weight_is_loaded(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = {"train": {"use": "byte-level", "vocab_size": 300}}
    message = refused(make_recipe(tokenizer=trained, export=["peft"]), tmp_path, monkeypatch)
    assert "'peft' can't be written: tokens of the base model have other ids now" in message


def test_an_extended_base_of_a_vocabulary_that_stays_is_refused_before_a_weight_is_loaded(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refused(make_recipe(export=["extended-base"]), tmp_path, monkeypatch)
    assert "'extended-base' can't be written: the vocabulary is the base model's" in message


@pytest.mark.parametrize("quantizer", ["none", "nf4"])
def test_a_model_trained_in_bfloat16_is_exported_exactly(make_recipe: Any, tmp_path: Path, quantizer: str) -> None:
    training = {"steps": 3, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu", "dtype": "bfloat16"}
    recipe = make_recipe(quantizer=quantizer, training=training, export=["peft", "merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert all(facts["proof"]["max_abs_diff"] < 1e-4 for facts in result.manifest["exports"].values())


@pytest.mark.parametrize("shape", [{}, {"tie_word_embeddings": False}])
def test_new_rows_trained_in_bfloat16_are_exported_as_they_are(
    make_recipe: Any, tmp_path: Path, shape: dict[str, Any]
) -> None:
    training = {"steps": 3, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu", "dtype": "bfloat16"}
    words = {"extend": {"tokens": 0, "words": [f"word{number}" for number in range(70)]}}
    model = tiny_model_folder(tmp_path / "model", **shape)
    recipe = make_recipe(model=str(model), tokenizer=words, training=training, export=["peft", "merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert all(facts["proof"]["max_abs_diff"] < 1e-4 for facts in result.manifest["exports"].values())


def test_double_quantized_scales_survive_the_way(make_recipe: Any, tmp_path: Path) -> None:
    quantizer = {"use": "nf4", "double_quant": True, "blocksize": 32}
    result = graftkit.run(make_recipe(quantizer=quantizer, export=["peft", "merged"]), out=tmp_path / "run")
    assert all(facts["proof"]["max_abs_diff"] < 1e-4 for facts in result.manifest["exports"].values())
    assert Nf4Config.model_validate(result.manifest["providers"]["quantizer"]["config"]).blocksize == 32


def test_a_manifest_from_elsewhere_chooses_no_code(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = finished
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(result.exports["peft"], tmp_path / "peft")
    manifest = json.loads((folder / "graftkit.json").read_text())
    for key in ("exporter", "adapter", "tokenizer", "model_source", "quantizer"):
        changed = {**manifest, key: {**manifest[key], "target": "evil:Class"}}
        (folder / "graftkit.json").write_text(json.dumps(changed))
        with pytest.raises(GraftkitError, match="no installed plugin offers evil:Class"):
            prove(folder, result.folder / "probes.safetensors")
            reload(str(folder))


def test_an_export_stops_where_the_base_and_training_stop(tmp_path: Path, make_recipe: Any) -> None:
    """Both of the base's stop tokens, its sampling settings, and the end of turn that was trained."""
    model = tiny_model_folder(tmp_path / "model", eos_token_id=256)
    settings = {"eos_token_id": [256, 3], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (model / "generation_config.json").write_text(json.dumps({**settings, "_from_model_config": True}))
    result = graftkit.run(make_recipe(model=str(model), export=["merged"]), out=tmp_path / "run")
    written = json.loads((result.exports["merged"] / "generation_config.json").read_bytes())
    assert written == {**settings, "eos_token_id": [3, 256, 258]}
    loaded = AutoModelForCausalLM.from_pretrained(result.exports["merged"], trust_remote_code=False)
    assert loaded.generation_config.eos_token_id == [3, 256, 258]
    assert result.manifest["stop_tokens"] == [3, 256, 258]


def test_layers_of_different_ranks_are_exported_and_read_again(make_recipe: Any, tmp_path: Path) -> None:
    """Ranks, alphas and the scale by the root of the rank, through adapter_config.json and peft."""
    adapter = {
        "use": "qlora",
        "rank": 4,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj|o_proj": 6},
        "alpha_pattern": {"down_proj": 3.0},
        "rslora": True,
        "lora_plus_ratio": 4.0,
    }
    result = graftkit.run(make_recipe(adapter=adapter, export=["peft", "merged"]), out=tmp_path / "run")
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    written = json.loads((result.exports["peft"] / "adapter_config.json").read_bytes())
    assert written["rank_pattern"] == adapter["rank_pattern"] and written["alpha_pattern"] == {"down_proj": 3.0}
    assert written["use_rslora"] is True
    tensors = load_file(result.exports["peft"] / "adapter_model.safetensors")
    ranks = {name: len(tensor) for name, tensor in tensors.items() if "lora_A" in name}
    assert {ranks[f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_A.weight"] for n in (0, 1)} == {6, 2}
    for source in (result.folder, result.exports["peft"]):
        assert reload(str(source)).network.get_submodule("model.layers.1.self_attn.q_proj").core.lora_A.shape[0] == 2
