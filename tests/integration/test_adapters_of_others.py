"""Adapters in PEFT's format, whoever made them: exported without a run, and trained further."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import click
import graftkit
import pytest
import torch
from adapted_models import adapter_of_peft
from architectures import settings
from click.testing import CliRunner
from graftkit import Provider, hookimpl
from graftkit.cli import generate, verify
from graftkit.cli.main import cli
from graftkit.errors import ExportError, FolderError, ModelError, PluginCallError, RecipeError, RequestError
from graftkit.flow.answering.reload import AdapterBase, reload
from graftkit.flow.events import Event, StageStarted
from graftkit.flow.exports import proof
from graftkit.flow.exports.kept_proof import KeptProof, folder_of_exports
from graftkit.flow.exports.probes import PROBES_FILE, Probes
from graftkit.flow.folders.adapter_folder import read_adapter_folder
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.folders.own_files import CHECKPOINTS, LOCK
from graftkit.flow.planning.check_adapter import check_layers
from graftkit.flow.preparation.adapter_model import load_packed, stream_adapted
from graftkit.flow.preparation.plan_adapter import plan_adapter
from graftkit.model.model_plan import plan_base_model
from graftkit.store.file_hashes import file_facts
from graftkit.testing import TINY_SHAPES, isolated_host, tiny_model_folder
from graftkit_adapters import config as own
from graftkit_exporters.merged import MergedExporter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

RecipeMaker = Callable[..., dict[str, Any]]


class Done(NamedTuple):
    """A command's exit code, and all that it printed."""

    exit_code: int
    output: str


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    return adapter_of_peft(tiny_model, tmp_path / "adapter", r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"])


def invoked(command: click.Command, *arguments: object) -> Done:
    found = CliRunner().invoke(command, list(map(str, arguments)))
    code = getattr(found.exception, "exit_code", found.exit_code)
    return Done(code, f"{found.output}{found.exception or ''}")


def export(*arguments: object) -> Done:
    return invoked(cli, "export", *arguments)


@pytest.mark.parametrize("use", ["merged", "peft"])
def test_an_adapter_with_all_that_peft_puts_beside_it_is_exported_and_proved(
    use: str, tiny_model: Path, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"target_modules": ["down_proj"], "modules_to_save": ["norm"]}
    made = adapter_of_peft(tiny_model, tmp_path / "adapter", trainable_token_indices=[300, 7], **fields)
    done = export(made, "--to", use, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "proved: logits within" in done.output and "covers: logits, tokens" in done.output
    assert (tmp_path / "out" / "exports" / use / "graftkit.json").is_file()
    again = invoked(verify.command, tmp_path / "out" / "exports" / use)
    assert again.exit_code == 0 and "proved" in again.output


@pytest.mark.filterwarnings("ignore:.*weight_tying")
def test_a_tied_matrix_that_an_adapter_holds_alone_unties_a_merged_model(tiny_model: Path, tmp_path: Path) -> None:
    made = adapter_of_peft(tiny_model, tmp_path / "a", target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    done = export(made, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    merged = tmp_path / "out" / "exports" / "merged"
    assert json.loads((merged / "config.json").read_bytes())["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file(merged / "model.safetensors")


@pytest.mark.parametrize("shape", ["llama", "llama-untied", "llama-biased", "qwen3"])
def test_a_base_that_stays_in_its_files_is_merged_as_peft_merges_it(shape: str, tmp_path: Path) -> None:
    base = tiny_model_folder(tmp_path / "base", **TINY_SHAPES[shape])
    made = adapter_of_peft(base, tmp_path / "a", r=3, lora_alpha=7, target_modules="all-linear")
    streamed = stream_adapted(plan_adapter(made, isolated_host()))
    assert streamed is not None and len(streamed.targets) == 14
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), made)
    merged = dict(streamed.merged_tensors())
    expected = theirs.merge_and_unload().state_dict()
    assert expected.keys() - merged.keys() <= {"lm_head.weight"} and merged.keys() <= expected.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    untouched = load_file(base / "model.safetensors")
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in streamed.base_tensors())


LOADED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "weights that are quantized": ({}, {"target_modules": ["q_proj"]}, "int8"),
    "weights that are stored as [in, out]": (
        settings("gpt2"),
        {"target_modules": ["c_attn"], "fan_in_fan_out": True},
        "none",
    ),
    "a whole module": ({}, {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "none"),
    "rows of embeddings": ({}, {"target_modules": ["q_proj"], "trainable_token_indices": [7]}, "none"),
}


@pytest.mark.parametrize("what", LOADED)
def test_where_names_and_shapes_leave_a_doubt_the_base_is_loaded(what: str, tmp_path: Path) -> None:
    shape, fields, quantizer = LOADED[what]
    made = adapter_of_peft(tiny_model_folder(tmp_path / "base", **shape), tmp_path / "a", **fields)
    assert stream_adapted(plan_adapter(made, isolated_host(), quantizer=quantizer)) is None


@pytest.mark.fresh_children
def test_merging_needs_no_transformers_before_the_proof(adapter: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from graftkit import PluginHost
from graftkit.flow.state.cancel import CancelToken
from graftkit.flow.events import StageStarted
from graftkit.flow.exports.export_adapter import export_adapter
from graftkit.flow.preparation.plan_adapter import plan_adapter

def on_event(event):
    if isinstance(event, StageStarted) and event.stage == "proof of merged":
        assert (out / "exports/merged/model.safetensors").is_file()
        print("transformers" in sys.modules)
        sys.exit()

out, host = Path({str(tmp_path / "out")!r}), PluginHost()
planned = plan_adapter(Path({str(adapter)!r}), host)
export_adapter(planned, "merged", out=out, host=host, on_event=on_event, cancel=CancelToken())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "False", found.stderr


def test_a_merged_model_that_cannot_be_proved_is_not_left(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> Any:
        assert (tmp_path / "out" / "exports" / "merged" / "model.safetensors").is_file()
        raise ModelError("the architecture computes something else in training")

    monkeypatch.setattr("graftkit.flow.exports.export_adapter.load_packed", refuse)
    refused = export(adapter, "--to", "merged", "--out", tmp_path / "out")
    assert refused.exit_code == 2 and "something else in training" in refused.output
    assert not (tmp_path / "out").exists()


SEPARATE_ROWS: dict[str, dict[str, list[int]]] = {
    "the output layer's alone": {"lm_head": [7, 300]},
    "other ids": {"embed_tokens": [7, 300], "lm_head": [12, 7]},
    "the same ids in another order, which PEFT does not tie": {"embed_tokens": [7, 300], "lm_head": [300, 7]},
    "the same ids, which PEFT ties": {"embed_tokens": [300, 7], "lm_head": [300, 7]},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("what", SEPARATE_ROWS)
def test_rows_of_embedding_and_output_are_merged_as_peft_computes_them(
    what: str, tied: bool, tiny_model: Path, tmp_path: Path
) -> None:
    """Not as peft merges them: its merge_and_unload of separate rows on a tied base computes something else."""
    base = tiny_model if tied else tiny_model_folder(tmp_path / "untied", tie_word_embeddings=False)
    rows = SEPARATE_ROWS[what]
    made = adapter_of_peft(base, tmp_path / "a", target_modules=["q_proj"], trainable_token_indices=rows)
    planned = plan_adapter(made, isolated_host())
    loaded = load_packed(planned, check_layers(planned.folder, plan_base_model(planned.files)), "cpu")
    folder = tmp_path / "merged"
    folder.mkdir()
    MergedExporter().export(loaded.model, folder)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), made)
    ids = torch.tensor([[7, 300, 40, 12, 41, 7]])
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    shares = tied and "which PEFT ties" in what
    assert loaded.model.unties is (tied and not shares)


def test_rows_that_peft_would_tie_or_drop_are_refused_before_the_base_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = {"embed_tokens": [7, 300], "lm_head": [300, 7]}
    made = adapter_of_peft(tiny_model, tmp_path / "a", target_modules=["q_proj"], trainable_token_indices=rows)
    as_peft = export(made, "--to", "peft", "--out", tmp_path / "out")
    assert as_peft.exit_code == 2 and "PEFT would tie them" in as_peft.output
    changed(made, trainable_token_indices={"embed_tokens": [7, 300], "lm_head": [7, 300]})
    done = export(made, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "PEFT ties such rows, and drops the output layer's" in done.output
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_peft_answers_as_it_does_in_peft(tiny_model: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}
    made = adapter_of_peft(tiny_model, tmp_path / "a", trainable_token_indices=[104, 105], **fields)
    changed(made, base_model_name_or_path="somebody/something")
    refused = invoked(generate.command, made, "hi")
    assert refused.exit_code == 2 and "names 'somebody/something', which is no folder here" in refused.output
    done = invoked(generate.command, made, "hi", "--base", tiny_model, "--compare", "--json", "--max-new-tokens", 8)
    assert done.exit_code == 0, done.output
    said = json.loads(done.output.splitlines()[-1])
    model = reload(str(made), isolated_host(), AdapterBase(str(tiny_model)))
    prompt = model.prompt("hi")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    untuned = base.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=list(model.stop))
    loaded = PeftModel.from_pretrained(base, made)
    tuned = loaded.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=list(model.stop)
    )
    for found, expected in ((said, tuned), (said["base"], untuned)):
        ids = [id for id in expected[0, len(prompt) :].tolist() if id not in model.stop]
        assert found["answer"] == model.tokenizer.decode(ids, skip_specials=True)
    assert said["answer"] != said["base"]["answer"]


def test_an_export_of_graftkit_is_exported_again(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    done = graftkit.run(make_recipe(export=["peft"], quantizer="int8"), out=tmp_path / "run")
    shutil.copytree(done.exports["peft"], tmp_path / "moved")
    found = export(tmp_path / "moved", "--to", "merged", "--set", "dtype=float16", "--out", tmp_path / "out", "--json")
    assert found.exit_code == 0, found.output
    manifest = json.loads((tmp_path / "out" / "exports" / "merged" / "graftkit.json").read_bytes())
    assert manifest["quantizer"]["name"] == "int8" and manifest["stored_dtype"] == "float16"
    assert manifest["adapter_from"]["files"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    other = tiny_model_folder(tmp_path / "other", seed=1)
    refused = export(tmp_path / "moved", "--to", "merged", "--base", other, "--out", tmp_path / "second")
    assert refused.exit_code == 2 and "is not the file that the adapter was trained on" in refused.output
    assert "--other-base" in refused.output and not (tmp_path / "second").exists()
    tokenizer = other / "tokenizer.json"
    own = tokenizer.read_text()
    tokenizer.write_text(own.replace('"A": 32', '"A": 33').replace('"B": 33', '"B": 32'))
    refused = export(
        tmp_path / "moved", "--to", "merged", "--base", other, "--other-base", "--out", tmp_path / "second"
    )
    assert refused.exit_code == 2 and "the id 32 is b'B' in the one and b'A' in the other" in refused.output
    tokenizer.write_text(own)
    taken = export(tmp_path / "moved", "--to", "merged", "--base", other, "--other-base", "--out", tmp_path / "second")
    assert taken.exit_code == 0, taken.output


def changed(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def retensored(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "QA-LoRA": (lambda path: changed(path, use_qalora=True), "it is QA-LoRA ('use_qalora'), which graftkit does not"),
    "DoRA without magnitudes": (lambda path: changed(path, use_dora=True), "up_proj.lora_magnitude_vector"),
    "another method": (lambda path: changed(path, peft_type="LOHA"), "its method is PEFT's LOHA"),
    "PiSSA": (lambda path: changed(path, init_lora_weights="pissa"), "changes the weights that it belongs to"),
    "biases": (lambda path: changed(path, bias="all"), "it trains biases as well"),
    "an option": (lambda path: changed(path, velora_config={"x": 1}), "the option 'velora_config'"),
    "a number of no use": (lambda path: changed(path, lora_alpha=0), "its 'alpha'"),
    "a huge rank": (lambda path: changed(path, r=10**7), "asks for 10,000,000"),
    "a pattern without end": (lambda path: changed(path, target_modules="(a+)+$"), "could take forever"),
    "a pattern of many stars": (lambda path: changed(path, target_modules=".*" * 12 + "Z"), "could take forever"),
    "patterns without number": (
        lambda path: (
            retensored(path, lambda found: found.update({"base_model.model.x": torch.ones(1, 5000)})),
            changed(path, rank_pattern={f"a{n}.*": 3 for n in range(4500)}),
        ),
        "4,500 patterns; 4,000 are read at most",
    ),
    "modules without number": (
        lambda path: (
            retensored(
                path, lambda found: found.update({f"base_model.model.a{n}.weight": torch.ones(1) for n in range(1100)})
            ),
            changed(path, modules_to_save=[f"a{n}" for n in range(1100)]),
        ),
        "'modules_to_save' names 1,100 modules, for 1,108 tensors",
    ),
    "a name without end": (
        lambda path: retensored(path, lambda found: found.update({"base_model.model." + "a." * 999: torch.ones(1)})),
        "has a name of 2,015 characters",
    ),
    "more layers named": (
        lambda path: changed(path, target_modules=["q_proj", "up_proj", "k_proj"]),
        "names 2 layers without tensors",
    ),
    "fewer layers named": (
        lambda path: changed(path, target_modules=["q_proj"]),
        "names no 2 layers that have tensors",
    ),
    "layers by half an expression": (
        lambda path: changed(path, target_modules="("),
        "adapter_config.json: '(' is no regular expression",
    ),
    "blocks by a name": (
        lambda path: changed(path, layers_to_transform="x"),
        "adapter_config.json: its 'layers_to_transform' is neither a name nor a list of names",
    ),
    "a tensor of nothing": (
        lambda path: retensored(path, lambda found: found.update({"base_model.model.x": torch.ones(1)})),
        "belongs to nothing that adapter_config.json names",
    ),
    "a layer's earlier name": (
        lambda path: retensored(path, lambda found: found.update({KEY.replace("layers", "blocks"): found.pop(KEY)})),
        "which the model lacks Is this the base model that it was trained on? Name another with --base. If it was "
        "saved with an earlier transformers, whose layers had other names, load it with peft and save it.",
    ),
    "a missing tensor": (lambda path: retensored(path, lambda found: found.pop(KEY)), "1 missing"),
    "another shape": (
        lambda path: retensored(path, lambda found: found.update({KEY: torch.ones(3, 65)})),
        "has shape [3, 65], not [3, 64]",
    ),
    "no number": (
        lambda path: retensored(path, lambda found: found[KEY].fill_(float("nan"))),
        "has numbers that are not finite",
    ),
    "rows that nobody has": (
        lambda path: (
            changed(path, trainable_token_indices=[400]),
            retensored(
                path,
                lambda found: found.update(
                    {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(1, 64)}
                ),
            ),
        ),
        "it has trained rows up to 400, of which the base model has 320",
    ),
    "a hub's base": (
        lambda path: changed(path, base_model_name_or_path="somebody/something"),
        "names 'somebody/something', which is no folder here",
    ),
    "a name too long for any folder": (
        lambda path: changed(path, base_model_name_or_path="a" * 5000),
        "which is no folder here",
    ),
    "another tokenizer": (
        lambda path: (path / "tokenizer.json").write_text(
            json.dumps(
                {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
            )
        ),
        "the tokenizer beside the adapter is another than the base model's",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_t_be_exported_right_is_refused(what: str, adapter: Path, tmp_path: Path) -> None:
    break_it, message = REFUSED[what]
    break_it(adapter)
    done = export(adapter, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", ["abc", {"a": 1}, {"a": {}}, {"a": {"prefix": "b", "experts": 2, "swapped": False}}])
def test_experts_without_tensors_are_refused(said: Any, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    done = graftkit.run(make_recipe(export=["peft"]), out=tmp_path / "run")
    shutil.copytree(done.exports["peft"], tmp_path / "moved")
    path = tmp_path / "moved" / "graftkit.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"expert_layouts": said}))
    refused = export(tmp_path / "moved", "--to", "merged", "--out", tmp_path / "out")
    assert refused.exit_code == 2 and "graftkit.json" in refused.output and not (tmp_path / "out").exists()


def test_exports_of_an_adapter_lie_beside_one_another_and_replace_nothing(
    adapter: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export(adapter, "--to", "merged", "--out", out).exit_code == 0
    assert graftkit.export(adapter, "peft", {"name": "beside"}, out=out).folder == out / "exports" / "beside"
    assert invoked(verify.command, out / "exports" / "merged").exit_code == 0
    before = file_facts(out)
    other = export(adapter, "--to", "merged", "--set", "name=other", "--quantizer", "nf4", "--out", out)
    assert other.exit_code == 2 and "probes.safetensors: it is another file than the one that" in other.output
    assert file_facts(out) == before
    (tmp_path / "mine" / "tokenizer").mkdir(parents=True)
    (tmp_path / "mine" / "tokenizer" / "tokenizer.json").write_text("mine")
    for made in ("peft", "merged", "merged"):  # once more, too, and where a folder of exports is
        mine = export(adapter, "--to", made, "--out", tmp_path / "mine")
        assert mine.exit_code == 2 and file_facts(tmp_path / "mine").keys() == {"tokenizer/tokenizer.json"}
        (tmp_path / "mine" / "exports").mkdir(exist_ok=True)
    assert (tmp_path / "mine" / "tokenizer" / "tokenizer.json").read_text() == "mine"
    done = graftkit.run(make_recipe(), out=tmp_path / "run")
    refused = export(adapter, "--to", "peft", "--out", tmp_path / "run")
    assert refused.exit_code == 2 and "there is a run in it" in refused.output
    assert done.manifest["artifacts"] == file_facts(done.folder, leave_out=frozenset(["manifest.json"]))


class OtherDay(date):
    """A day long ago."""

    @classmethod
    def today(cls) -> OtherDay:
        return cls(2020, 2, 3)


def test_a_quantized_export_of_an_adapter_is_added_to_others_days_later(
    adapter: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_model, base)
    settings_file = base / "tokenizer_config.json"
    said = json.loads(settings_file.read_bytes())
    template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    settings_file.write_text(json.dumps({**said, "chat_template": template}))
    (base / "chat_template.jinja").unlink(missing_ok=True)
    with monkeypatch.context() as then:
        then.setattr("graftkit.flow.exports.kept_proof.date", OtherDay)
        assert export(adapter, "--to", "merged", "--base", base, "--out", out).exit_code == 0
    first = out / "exports" / "merged"
    q8: list[object] = [adapter, "--to", "gguf", "--set", "type=q8_0", "--base", base, "--out", out]
    with monkeypatch.context() as breaking:
        breaking.setattr("graftkit.flow.exports.export_adapter.write_export", _refuse_to_write)
        assert export(*q8).exit_code == 1
    assert invoked(verify.command, first).exit_code == 0  # with the probes that were put there for the other
    done = export(*q8)
    assert done.exit_code == 0 and "proved" in done.output, done.output
    probes = Probes.load(out / PROBES_FILE)
    assert probes.sketches and probes.assets and "03 Feb 2020" in str(probes.assets.rendered)
    before = file_facts(out)
    with monkeypatch.context() as breaking:
        breaking.setattr("graftkit.flow.exports.export_adapter.write_export", _refuse_to_write)
        assert export(adapter, "--to", "peft", "--base", base, "--out", out).exit_code == 1  # which needs no sketches
    assert file_facts(out) == before


def _refuse_to_write(*_: object) -> None:
    raise ExportError("the disk is full")


def test_exports_of_other_adapters_of_the_same_name_go_to_another_folder(adapter: Path, tmp_path: Path) -> None:
    planned, named = plan_adapter(adapter, isolated_host()), tmp_path / "runs" / "adapter"
    assert folder_of_exports(named, planned) == named
    said = {**planned.facts, "adapter_from": {"path": str(adapter), "files": dict(planned.folder.files)}}
    mine = ExportManifest.model_validate({**said, "tokenizer_fingerprint": planned.tokenizer.fingerprint})
    (named / "exports" / "merged").mkdir(parents=True)
    mine.write(named / "exports" / "merged")
    assert folder_of_exports(named, planned) == named
    others: dict[str, Any] = {
        "adapter_from": {"path": str(adapter), "files": {}},
        "model": {"reference": "other", "files": {"model.safetensors": "0"}},
        "quantizer": {"name": "nf4"},
        "tokenizer_fingerprint": "0",
    }
    for key, value in others.items():
        other = ExportManifest.model_validate(mine.model_dump(exclude_unset=True) | {key: value})
        other.write(named / "exports" / "merged")
        assert folder_of_exports(named, planned) == named.with_name("adapter-2")
    (named.parent / "adapter-2").write_text("mine")
    assert folder_of_exports(named, planned) == named.with_name("adapter-3")


def test_one_export_at_a_time_is_written_into_a_folder(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove, others = proof.prove, []

    def prove_late(*arguments: Any, **named: Any) -> dict[str, Any]:
        others.extend(export(adapter, "--to", use, "--out", tmp_path / "out") for use in ("merged", "peft"))
        return prove(*arguments, **named)

    monkeypatch.setattr(proof, "prove", prove_late)
    done = export(adapter, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "proved: logits within" in done.output
    assert [other.exit_code for other in others] == [2, 2]
    assert all("out: a run or an export is going on in it" in other.output for other in others)
    assert not (tmp_path / "out" / LOCK).exists()


@pytest.mark.parametrize("end", [{"status": "proved"}, ExportError("it computes something else")])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_proof_is_written_onto_the_export_that_it_is_of_alone(
    replaced: bool, end: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ExportManifest(files={"model": {"sha256": "a"}}, proof={"status": "not yet"})
    written.write(tmp_path)

    def prove(*_: object, **__: object) -> Any:
        if replaced:
            written.model_copy(update={"files": {"model": {"sha256": "b"}}}).write(tmp_path)
        if isinstance(end, ExportError):
            raise end
        return end

    monkeypatch.setattr(proof, "prove", prove)
    expected = "something else put other files" if replaced else "it computes" if isinstance(end, ExportError) else None
    with pytest.raises(ExportError, match=expected) if expected else nullcontext():
        proof.prove_and_tell(tmp_path, tmp_path / "probes", None, disable=(), notice=print)
    said = ExportManifest.read(tmp_path, ()).proof["status"]
    assert said == ("not yet" if replaced else "failed" if expected else "proved")


def test_a_file_in_an_export_that_was_not_finished_is_not_lost(adapter: Path, tmp_path: Path) -> None:
    failed = tmp_path / "out" / "exports" / "merged"
    failed.mkdir(parents=True)
    listed = {"README.md": {"bytes": 4, "sha256": "0" * 64}}  # its card, edited
    (failed / "graftkit.json").write_text(json.dumps({"exporter": {"name": "merged"}, "files": listed}))
    for name in ("README.md", "notes.txt"):
        (failed / name).write_text("mine")
        refused = export(adapter, "--to", "merged", "--out", tmp_path / "out")
        assert refused.exit_code == 2 and f"{name}: it lies in an export that was not finished" in refused.output
        assert (failed / name).read_text() == "mine"
        (failed / name).unlink()
    (tmp_path / "other" / "exports").mkdir(parents=True)
    (tmp_path / "other" / "exports" / "merged").symlink_to(tmp_path / "nowhere")
    assert "there is an export already" in export(adapter, "--to", "merged", "--out", tmp_path / "other").output


def test_what_a_kill_has_left_of_an_export_is_written_again(tmp_path: Path) -> None:
    """Its card comes after its proof; a half-written file of graftkit's own is nobody's to move away."""
    export, card = tmp_path / "out" / "exports" / "merged", {"README.md": {"bytes": 4, "sha256": "0" * 64}}
    export.mkdir(parents=True)
    for said, listed in (("not yet", {}), ("proved", {}), ("proved", card)):
        ExportManifest(exporter={"name": "merged"}, files=listed, proof={"status": said}).write(export)
        (export / ".graftkit.json.graftkit-0a1b2c3d.partial").write_text("{")
        KeptProof(tmp_path / "made", export)
    (export / "README.md").write_text("whole")
    with pytest.raises(FolderError, match="there is an export already"):
        KeptProof(tmp_path / "made", export)


def test_what_other_programs_have_to_be_told_is_told_of_an_adapter_too(
    make_recipe: RecipeMaker, chat_records: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant {% if calm %}calm {% endif %}{% endif %}"
    )
    chat = {"chat_template": str(tmp_path / "own.jinja"), "template_arguments": {"calm": False}}
    base = tiny_model_folder(tmp_path / "base")
    said = json.loads((base / "tokenizer_config.json").read_bytes())
    (base / "tokenizer_config.json").write_text(json.dumps({**said, "tokenizer_class": "Qwen2Tokenizer"}))
    data = {"train": str(chat_records), "holdout": 0.1, "max_length": 64, **chat}
    result = graftkit.run(make_recipe(model=str(base), data=data, export=["peft"]), out=tmp_path / "run")
    made = result.exports["peft"]
    (told,) = (text for text in result.manifest["notices"] if "another tokenizer of the base model's files" in text)
    assert "1 of " in told and "cafe\\u0301" in ascii(told) and "template" not in told, (
        "that class brings text into NFC"
    )
    assert "transformers makes another tokenizer" in (made / "README.md").read_text()
    done = export(made, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "another program must pass calm=False to its chat template" in done.output
    refused = export(made, "--to", "merged", "--out", tmp_path / "base", "--tokenizer", "base")
    assert (
        refused.exit_code == 2 and "graftkit trained the adapter with the tokenizer that lies beside" in refused.output
    )


def test_a_tokenizer_that_splits_texts_otherwise_is_told(tiny_model: Path, adapter: Path) -> None:
    own = json.loads((tiny_model / "tokenizer.json").read_bytes())
    own["normalizer"] = {"type": "Lowercase"}
    (adapter / "tokenizer.json").write_text(json.dumps(own))
    planned = plan_adapter(adapter, isolated_host())
    assert [notice for notice in planned.notices if "has the base model's tokens, and makes others" in notice]
    assert not plan_adapter(adapter, isolated_host(), tokenizer="base").notices


def test_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    wider = tiny_model_folder(tmp_path / "wider", hidden_size=96)
    done = export(adapter, "--to", "merged", "--base", wider, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "Is this the base model that it was trained on?" in done.output


def test_an_adapter_s_options_are_refused_for_a_run(tmp_path: Path) -> None:
    done = export(tmp_path, "--to", "merged", "--base", "x")
    assert done.exit_code == 2 and "there is no run in it" in done.output
    (tmp_path / "manifest.json").write_text("{}")
    done = export(tmp_path, "--to", "merged", "--base", "x")
    assert done.exit_code == 2 and "--base: only for an adapter's folder" in done.output


def test_training_goes_on_with_an_adapter_and_resumes(adapter: Path, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(adapter={"from": str(adapter)}, export=["peft"])
    done = graftkit.run(recipe, out=tmp_path / "run")
    said = done.manifest["recipe"]["adapter"]
    assert (said["use"], said["rank"], said["alpha"]) == ("lora", 3, 7) and len(said["targets"]) == 4
    assert done.manifest["adapter_from"]["files"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    export(adapter, "--to", "merged", "--out", tmp_path / "out")
    merged = str(tmp_path / "out" / "exports" / "merged")
    whole = graftkit.run(make_recipe(model=merged), out=tmp_path / "whole")
    assert done.before and whole.before
    assert done.before.holdout_loss == pytest.approx(whole.before.holdout_loss, rel=1e-5)
    first = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("run", "whole")]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-5)
    longer = {**recipe, "training": {**recipe["training"], "steps": 8}}
    assert graftkit.run(longer, out=tmp_path / "run", resume=True).manifest["status"] == "finished"
    changed(adapter, lora_alpha=8)
    with pytest.raises(RecipeError, match=r"adapter.alpha was 7(\.0)? and is 8"):
        graftkit.run({**recipe, "training": {**recipe["training"], "steps": 9}}, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / CHECKPOINTS).is_dir()


def test_an_adapter_whose_model_computes_no_numbers_is_named(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 1e30 * tensor for name, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
    asked = invoked(generate.command, adapter, "hello", "--base", tiny_model, "--plain", "--max-new-tokens", 2)
    exported = export(adapter, "--base", tiny_model, "--to", "merged", "--out", tmp_path / "out")
    for done in (asked, exported):
        assert done.exit_code == 2 and f"{adapter}: its logits are no finite numbers" in done.output, done.output
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_changes_after_it_was_checked_is_refused(
    adapter: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    def change(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "corpus":
            retensored(adapter, lambda found: found[KEY].mul_(2))

    with pytest.raises(RequestError, match="the file has changed since it was checked"):
        graftkit.run(make_recipe(adapter={"from": str(adapter)}), out=tmp_path / "run", on_event=change)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rank": 16}, r"adapter.rank is 16, the adapter in .* has 3"),
        ({"alpha": 6.0}, r"adapter.alpha is 6.0, the adapter in .* has 7"),
        ({"targets": ["q_proj"]}, "adapter.targets names other layers than the adapter in"),
    ],
)
def test_a_recipe_that_contradicts_its_adapter_is_refused(
    said: dict[str, Any], message: str, adapter: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        graftkit.run(make_recipe(adapter={"from": str(adapter), **said}), out=tmp_path / "run")


def test_an_adapter_of_graftkit_is_trained_further_on_its_own_base_alone(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    first = graftkit.run(make_recipe(export=["peft"]), out=tmp_path / "first")
    go_on = {"from": str(first.exports["peft"]), "dropout": 0.1}
    second = graftkit.run(make_recipe(adapter=go_on), out=tmp_path / "second")
    assert first.after and second.before
    assert second.before.holdout_loss == pytest.approx(first.after.holdout_loss, rel=1e-6)
    other = str(tiny_model_folder(tmp_path / "other", seed=1))
    with pytest.raises(ModelError, match="is not the file that the adapter was trained on"):
        graftkit.run(make_recipe(adapter=go_on, model=other), out=tmp_path / "third")


class BreakingConfig(own.LoraConfig):
    """Ends the program, or raises what nobody expects, at a stranger's fields."""

    @classmethod
    def from_peft(cls, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        print("printed")
        raise BREAKS[str(fields["lora_alpha"])]


BREAKS: dict[str, BaseException] = {"7": SystemExit(3), "8": KeyError("r")}


class Breaking:
    """Offers it."""

    @hookimpl
    def graftkit_adapters(self) -> list[Provider]:
        config = f"{__name__}:BreakingConfig"
        return [Provider(name="breaking", target="graftkit_adapters.lora:Lora", config=config)]


@pytest.mark.parametrize(("alpha", "raised"), [(7, "SystemExit: 3"), (8, "KeyError: 'r'")])
def test_a_plugin_that_breaks_at_a_folder_is_named(
    alpha: int, raised: str, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(adapter, lora_alpha=alpha)
    with pytest.raises(PluginCallError, match=f"from_peft.. of its adapter 'breaking' raised {raised}") as caught:
        read_adapter_folder(adapter, isolated_host(Breaking()), "breaking")
    assert caught.value.where == "plugin 'Breaking'" and capsys.readouterr().out == ""
