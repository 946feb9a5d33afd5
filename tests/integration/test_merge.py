"""What an adapter is merged onto: measured, proved on what was chosen, and refused where there is no such base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import graftkit
import pytest
import torch
from adapted_models import adapter_of_peft
from click.testing import CliRunner
from graftkit import Provider, hookimpl
from graftkit.cli import export as export_command
from graftkit.cli.verify import command as verify
from graftkit.errors import ExportError, RecipeError
from graftkit.flow.exports.probes import PROBES_FILE
from graftkit.flow.exports.proof import prove
from graftkit.report.run_manifest import MergeFacts
from graftkit.report.summary import merge_text
from graftkit.testing import isolated_host
from integration.conftest import RecipeMaker
from integration.test_stored_quantizer import gguf_model, texts
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

BASES = ("dequantized", "original", "requantized")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """A run on NF4 weights with a merged export of each base, that of what was trained chosen by measuring."""
    folder = tmp_path_factory.mktemp("merge")
    said = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}] for n in range(60)]
    (folder / "records.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in said))
    merges = [{"use": "merged", "name": onto, "onto": onto} for onto in ("original", "requantized", "auto")]
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(folder / "records.jsonl"), "holdout": 0.3, "max_length": 64},
        "quantizer": {"use": "nf4", "double_quant": False},
        "adapter": {"use": "lora", "rank": 4},
        "training": {"steps": 20, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "evaluation": {"answers": 4},
        "export": ["peft", *merges],
    }
    return graftkit.run(recipe, out=folder / "run")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_onto_original_is_what_peft_merges(done: Any, tiny_model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, done.exports["peft"]).merge_and_unload().state_dict()
    own, trained = tensors(done.exports["original"]), tensors(done.exports["auto"])
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)
    changed = [name for name in own if not torch.equal(own[name], trained[name])]
    assert len(changed) == 14 and all(".layers." in name for name in changed)


def test_requantized_is_what_bitsandbytes_makes_of_the_merged_weights(done: Any) -> None:
    own, trained = tensors(done.exports["requantized"]), tensors(done.exports["auto"])
    layers = [name for name in own if name.endswith("_proj.weight")]
    assert len(layers) == 14
    for name in layers:
        expected = bnb.dequantize_4bit(*bnb.quantize_4bit(trained[name], quant_type="nf4", blocksize=64))
        torch.testing.assert_close(own[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("onto", ["original", "requantized"])
def test_another_base_is_proved_on_what_was_chosen_and_its_difference_told(onto: str, done: Any) -> None:
    proof = done.manifest["exports"][onto]["proof"]
    assert proof["status"] == "proved" and proof["max_abs_diff"] < proof["tolerance"]
    assert proof["merged_onto"] == onto and proof["from_trained"]["largest"] > 100 * proof["tolerance"]
    found = CliRunner().invoke(verify, [str(done.exports[onto])])
    assert f"merged onto {onto}: off from the trained model by" in found.output, found.output


@pytest.mark.parametrize(("export", "claimed"), [("original", "dequantized"), ("auto", "original")])
def test_a_merge_onto_another_base_than_it_says_is_not_proved(
    export: str, claimed: str, done: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    shutil.copytree(done.exports[export], folder)
    manifest = json.loads((folder / "graftkit.json").read_bytes())
    manifest["merge"]["onto"] = claimed
    (folder / "graftkit.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="computes something else than what was trained"):
        prove(folder, done.folder / PROBES_FILE, trusted=True)


def test_what_was_measured_stands_wherever_the_export_is_told_of(done: Any) -> None:
    merge = done.manifest["exports"]["auto"]["merge"]
    assert merge == json.loads((done.exports["auto"] / "graftkit.json").read_bytes())["merge"]
    trained, *scores = merge["scores"]
    assert trained["onto"] == "trained" and [score["onto"] for score in scores] == list(BASES)
    assert trained["loss"] == pytest.approx(done.after.holdout_loss, rel=1e-5)
    assert scores[0]["kl"] < 1e-6 < scores[1]["kl"] and scores[0]["top1"] == 1
    assert merge["onto"] == "dequantized" and "18 holdout records" in merge["measured_on"] and merge["reason"]
    card = (done.exports["auto"] / "README.md").read_text()
    page = (done.folder / "report.html").read_text()
    for text in (card, page):
        assert all(f"{score['loss']:.4f}" in text for score in scores) and "KL divergence" in text
    assert merge_text(MergeFacts(onto="dequantized", asked="dequantized")) == ""


def test_a_finished_run_is_merged_onto_another_base_on_the_command_line(done: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(done.folder, folder)
    found = CliRunner().invoke(export_command.command, [str(folder), "--to", "merged", "--set", "onto=auto"])
    assert found.exit_code == 0, f"{found.output}{found.exception}"
    lines = [line.split() for line in found.output.splitlines()]
    assert ["merged", "onto", "loss", "KL", "divergence", "same", "token", "exact"] in lines
    assert {line[0] for line in lines if line} >= {*BASES, "(the"}


def test_without_holdout_records_what_was_trained_is_kept_and_that_is_said(
    make_recipe: RecipeMaker, chat_records: Path, tmp_path: Path
) -> None:
    data = {"train": str(chat_records), "holdout": 0, "max_length": 64}
    recipe = make_recipe(data=data, quantizer="int8", export=[{"use": "merged", "onto": "auto"}])
    merge = graftkit.run(recipe, out=tmp_path / "run").manifest["exports"]["merged"]["merge"]
    assert merge["onto"] == "dequantized" and len(merge["scores"]) == 4
    assert "records that it was trained on, since none is held out" in merge["measured_on"]


def test_an_adapter_of_peft_is_merged_onto_either_base(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapter_of_peft(tiny_model, tmp_path / "adapter", r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"])
    for onto in ("original", "auto"):
        out = tmp_path / onto
        options = ["--to", "merged", "--quantizer", "nf4", "--set", f"onto={onto}", "--out", str(out), "--json"]
        found = CliRunner().invoke(export_command.command, [str(adapter), *options])
        assert found.exit_code == 0, f"{found.output}{found.exception}"
        merge = json.loads(found.output.splitlines()[-1])["merge"]
    assert merge["onto"] == "dequantized" and "texts of graftkit's own" in merge["measured_on"]
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    for name, tensor in tensors(tmp_path / "original" / "exports" / "merged").items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("quantizer", ["stored", "nf4"])
def test_a_base_that_is_only_quantized_has_no_original(
    quantizer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    model = gguf_model(tmp_path / "base", "Q4_1")
    export: list[dict[str, Any]] = [{"use": "merged", "onto": "original"}]
    recipe = make_recipe(model=model, data=texts(tmp_path), quantizer=quantizer, export=export)
    with pytest.raises(RecipeError, match=r"onto: original: the base model's own file holds its weights quantized"):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if quantizer == "stored":
        measured = {**recipe, "export": [{"use": "merged", "onto": "auto"}]}
        merge = graftkit.run(measured, out=tmp_path / "run").manifest["exports"]["merged"]["merge"]
        assert merge["onto"] == "dequantized" and merge["left_out"].keys() == {"original", "requantized"}


def test_a_quantizer_that_rounds_nothing_requantizes_nothing(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(quantizer="none", export=[{"use": "merged", "onto": "requantized"}])
    with pytest.raises(RecipeError, match="onto: requantized: the run's quantizer keeps weights as they are"):
        graftkit.plan(recipe, as_run=True)


class ChangesFrozen:
    """Offers an adapter that puts another frozen weight in the place of the base model's."""

    @hookimpl
    def graftkit_adapters(self) -> list[Provider]:
        return [Provider(name="pissa", target="plugins_of_others.pissa:Pissa")]


def test_an_adapter_that_changed_its_frozen_weight_has_no_original(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    host = isolated_host(ChangesFrozen())
    export = [{"use": "merged", "onto": "original"}]
    recipe = make_recipe(quantizer="nf4", adapter="plugins_of_others.pissa:Pissa", export=export)
    with pytest.raises(RecipeError, match="onto: original: the adapter has changed the frozen weight"):
        graftkit.run(recipe, out=tmp_path / "run", host=host)
