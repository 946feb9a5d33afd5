"""Runs whose exports are GGUF files: a whole model, and an adapter on a base model that is one itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
from architectures import settings
from click.testing import CliRunner
from gguf_models import write_llama
from graftkit.cli.main import cli
from graftkit.errors import ExportError, FolderError, RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.store.file_hashes import file_facts
from graftkit.testing import tiny_model_folder
from graftkit_gguf.header import read_header
from graftkit_gguf.stored_types import StoredTypes
from safetensors import safe_open

SYSTEM = 'Say """yes""", or\nno.'


def run(model: Path, folder: Path, exports: list[Any], **sections: Any) -> graftkit.RunResult:
    records = folder / "records.jsonl"
    turns = [
        [("system", SYSTEM), ("user", f"Is {n} even?"), ("assistant", "yes" if n % 2 == 0 else "no")] for n in range(20)
    ]
    messages = [{"messages": [{"role": role, "content": text} for role, text in turn]} for turn in turns]
    records.write_text("".join(json.dumps(record) + "\n" for record in messages))
    training = {"steps": 3, "tokens_per_step": 128, "learning_rate": 3e-2, "device": "cpu"}
    recipe = {"model": str(model), "data": {"train": str(records)}, "training": training, "export": exports}
    return graftkit.run({**recipe, **sections}, out=folder / "run")


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    return run(tiny_model, tmp_path_factory.mktemp("whole"), [{"use": "gguf", "type": "f32"}])


@pytest.fixture(scope="module")
def finished(whole: graftkit.RunResult, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    adapter: Mapping[str, Any] = {"use": "lora", "rank": 4, "rslora": True}
    base = whole.folder / "exports" / "gguf" / "model.gguf"
    folder = tmp_path_factory.mktemp("adapted")
    return run(base, folder, ["gguf-lora"], adapter=adapter, quantizer="none")


def test_a_modelfile_lies_beside_each(whole: graftkit.RunResult, finished: graftkit.RunResult) -> None:
    stop = 'PARAMETER stop """<|im_end|>"""\n'
    texts = [
        (result.folder / "exports" / name / "Modelfile").read_text()
        for result, name in ((whole, "gguf"), (finished, "gguf-lora"))
    ]
    said = f'SYSTEM """{SYSTEM}"""\n'
    assert texts[0] == f"FROM ./model.gguf\n{stop}{said}"
    note, rest = texts[1].split("\n", 1)
    assert note.startswith("# Put the path of the base model") and str(whole.folder.absolute()) not in texts[1]
    assert rest == f'FROM """./model.gguf"""\nADAPTER ./adapter.gguf\n{stop}{said}'


def test_the_run_says_that_the_adapter_was_proved_on_its_bases_own_file(finished: graftkit.RunResult) -> None:
    proof = finished.manifest["exports"]["gguf-lora"]["proof"]
    assert proof["status"] == "proved" and proof["base_stored_by"] == "none"
    assert proof["on_base_file"]["same_weights"] and proof["on_base_file"]["max_abs_diff"] < 1e-3


def test_verify_proves_it_again_and_tells_another_adapter(finished: graftkit.RunResult, tmp_path: Path) -> None:
    folder = finished.folder / "exports" / "gguf-lora"
    again = CliRunner().invoke(cli, ["verify", str(folder)])
    assert again.exit_code == 0 and "; on model.gguf within" in again.output, again.output
    copied = shutil.copytree(finished.folder, tmp_path / "run") / "exports" / "gguf-lora"
    (tmp_path / "run" / "manifest.json").unlink()
    adapter = copied / "adapter.gguf"
    adapter.write_bytes(adapter.read_bytes()[:-100])
    manifest = json.loads((copied / "graftkit.json").read_text())
    manifest["files"] = file_facts(copied, leave_out=frozenset({"graftkit.json"}))
    (copied / "graftkit.json").write_text(json.dumps(manifest))
    damaged = CliRunner().invoke(cli, ["verify", str(copied)])
    assert isinstance(damaged.exception, ExportError) and "ends at byte" in damaged.exception.message
    assert damaged.exception.where == str(adapter)


def test_what_graftkit_does_not_load_itself_is_said(finished: graftkit.RunResult) -> None:
    with pytest.raises(FolderError, match="an export of 'gguf-lora' can't be tried"):
        reload(str(finished.folder / "exports" / "gguf-lora"))


def test_what_was_not_trained_is_copied_from_a_gguf_base_bit_for_bit(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base.gguf", StoredTypes("q4_1", ties=True))
    adapter = {"use": "lora", "rank": 4, "targets": ["*.0.self_attn.q_proj"]}
    result = run(base, tmp_path, [{"use": "gguf", "type": "base"}], adapter=adapter, quantizer="stored")
    export = result.exports["gguf"]
    headers = [read_header(base), read_header(export / "model.gguf")]
    changed = []
    for name, tensor in headers[0].tensors.items():
        ours, theirs = (header.path.read_bytes()[header.tensors[name].offset :][: tensor.nbytes] for header in headers)
        changed += [name] if ours != theirs else []
        assert name in changed or headers[1].tensors[name].type == tensor.type
    assert changed == ["blk.0.attn_q.weight"]
    assert [header.tensors[changed[0]].type.name for header in headers] == ["Q4_1", "Q8_0"]
    told = "what the base model's file has as q4_1 is stored as q8_0 where it changed"
    assert sum(told in notice for notice in result.manifest["notices"]) == 1
    manifest = json.loads((export / "graftkit.json").read_text())
    assert manifest["tensors_of_base"] == len(headers[0].tensors) - 1
    rounding = manifest["proof"]["rounding"]
    assert rounding["weights"]["compared"] == 15 and rounding["weights"]["excess"] < 1
    card = (export / "README.md").read_text()
    assert "What the base model's file has as q4\\_1" in card
    assert "each of 15 weights within rounding" in card and "nats" in card and "loss" in card


def test_a_change_that_rounding_takes_back_is_refused(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base.gguf", StoredTypes("q4_0", output="q4_0", ties=True))
    small = {"use": "lora", "rank": 4, "alpha": 0.5}
    same = {"use": "gguf", "type": "base", "changed": "base", "name": "same"}
    asked = [{"use": "gguf", "type": "base"}, same]
    with pytest.raises(ExportError, match=r"exports/same|divergence") as caught:
        run(base, tmp_path, asked, adapter=small, quantizer="stored")
    assert "finer type" in (caught.value.hint or "")
    fine = json.loads((tmp_path / "run" / "exports" / "gguf" / "graftkit.json").read_text())
    assert fine["proof"]["status"] == "proved"


def test_a_matrix_that_a_format_holds_twice_is_compared_twice(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("olmo2"), num_key_value_heads=4)
    result = run(model, tmp_path, ["gguf"], adapter={"use": "lora", "rank": 4}, quantizer="none")
    names = read_header(result.exports["gguf"] / "model.gguf").tensors.keys()
    assert {"token_embd.weight", "output.weight"} <= names
    matrices = 2 + 7 * 2
    assert result.manifest["exports"]["gguf"]["proof"]["rounding"]["weights"]["compared"] == matrices


def test_no_sketches_are_kept_where_nothing_is_quantized(whole: graftkit.RunResult) -> None:
    with safe_open(whole.folder / "probes.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("sketch.")]  # noqa: SIM118
    assert "rounding" not in whole.manifest["exports"]["gguf"]["proof"]


def test_types_of_a_base_that_is_no_gguf_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="type: base stores tensors as the base model's own GGUF file"):
        run(tiny_model, tmp_path, [{"use": "gguf", "type": "base"}])
