"""Folders as transformers writes them, and everything that a folder may be instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.errors import ModelError
from graftkit.testing import tiny_model_folder, tiny_tokenizer_files
from graftkit_models.huggingface import HuggingFaceSource
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import load_file, save

SOURCE = HuggingFaceSource()
CONFIG = {"model_type": "llama"}


@pytest.fixture(scope="session")
def sharded_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("sharded") / "tiny", shards=4)


def small(folder: Path, config: object = CONFIG, **arrays: np.ndarray[Any, Any]) -> Path:
    """Writes a folder whose weights are these arrays."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(arrays or {"a": np.ones((2, 3), np.float32)}, folder / "model.safetensors")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        SOURCE.open(str(folder))
    assert caught.value.exit_code == 2 and str(folder) in caught.value.where
    return str(caught.value).replace(str(folder), "FOLDER")


def test_a_folder_is_read_as_transformers_reads_it(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    files = SOURCE.open(str(tiny_model))
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    ours = dict(files.read())
    assert ours.keys() == files.tensors.keys() == theirs.keys() - {"lm_head.weight"}  # tied to the embedding
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(files.tensors[name].shape == tuple(tensor.shape) for name, tensor in ours.items())
    assert files.config["model_type"] == "llama"
    assert files.reference == str(tiny_model)
    assert [path.name for path in files.files] == ["config.json", "model.safetensors"]


def test_shards_hold_the_same_tensors_as_one_file(tiny_model: Path, sharded_model: Path) -> None:
    one, many = SOURCE.open(str(tiny_model)), SOURCE.open(str(sharded_model))
    assert len(many.files) > 3
    assert many.tensors == one.tensors
    expected = dict(one.read())
    found = dict(many.read())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_types_are_kept_and_doubles_become_floats(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    types = {"a": torch.float64, "b": torch.float32, "c": torch.float16, "d": torch.bfloat16}
    tensors = {name: torch.ones(2, 2, dtype=dtype) for name, dtype in types.items()}
    (tmp_path / "model.safetensors").write_bytes(save(tensors))
    files = SOURCE.open(str(tmp_path))
    assert [info.dtype for _, info in sorted(files.tensors.items())] == ["F64", "F32", "F16", "BF16"]
    found = {name: tensor.dtype for name, tensor in files.read()}
    assert found == {**types, "a": torch.float32}


def test_the_tokenizer_is_copied_with_all_its_files(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ x }}")
    (tmp_path / "to").mkdir()
    SOURCE.open(str(tmp_path / "m")).save_tokenizer(tmp_path / "to")
    names = {path.name for path in (tmp_path / "to").iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    for name, data in tiny_tokenizer_files().items():
        assert (tmp_path / "to" / name).read_bytes() == data


def test_a_folder_without_tokenizer_json_says_how_to_get_one(tmp_path: Path) -> None:
    files = SOURCE.open(str(small(tmp_path / "m")))
    (tmp_path / "m" / "tokenizer.model").write_text("")
    (tmp_path / "to").mkdir()
    with pytest.raises(ModelError, match=r"no tokenizer\.json \(there is tokenizer\.model\)") as caught:
        files.save_tokenizer(tmp_path / "to")
    assert "save_pretrained" in caught.value.hint


@pytest.mark.parametrize("place", ["before", "inside", "after", "end"])
def test_a_truncated_shard_is_refused(sharded_model: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(sharded_model, tmp_path / "m")
    shard = max((tmp_path / "m").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    size = shard.stat().st_size
    cut = {"before": 4, "inside": 50, "after": size // 2, "end": size - 1}[place]
    shard.write_bytes(shard.read_bytes()[:cut])
    message = refusal(tmp_path / "m")
    assert shard.name in message and "truncated" in message and "Download or copy the file again." in message


def test_a_missing_shard_is_named(sharded_model: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded_model, tmp_path / "m")
    shard = min((tmp_path / "m").glob("*.safetensors"))
    shard.unlink()
    assert f"the shard {shard.name} is missing\nDownload it again." in refusal(tmp_path / "m")


def test_a_tensor_in_two_shards_is_refused(sharded_model: Path, tmp_path: Path) -> None:
    shutil.copytree(sharded_model, tmp_path / "m")
    first, second, *_ = sorted((tmp_path / "m").glob("*.safetensors"))
    shutil.copyfile(first, second)
    assert f"is also in {first.name}" in refusal(tmp_path / "m")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "its weight_map leaves the folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "its weight_map leaves the folder"),
        ({"weight_map": {"a": "sub/model.safetensors"}}, "its weight_map leaves the folder"),
        ({"weight_map": {"a": "."}}, "its weight_map leaves the folder"),
        ({"weight_map": {"a": ".."}}, "the shard .. is missing"),
        ({"weight_map": {"a": ""}}, "is missing"),
        ({"weight_map": {"a": "x\0"}}, "is missing"),
        ({"weight_map": {"a": "x" * 300}}, "is missing"),
        ({"weight_map": {"a": 3}}, "its weight_map is malformed"),
        ({"weight_map": ["a"]}, "its weight_map is malformed"),
        ({}, "its weight_map is malformed"),
        ([], "no JSON object"),
        ({"weight_map": {}}, "there is no tensor in its weights"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_index_that_means_nothing_is_refused(tmp_path: Path, index: object, message: str) -> None:
    folder = small(tmp_path / "m")
    shutil.copyfile(folder / "model.safetensors", tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "it has no model_type"),
        ({"model_type": 3}, "it has no model_type"),
        ([], "no JSON object"),
        ({**CONFIG, "quantization_config": {"bits": 4}}, "the weights are already quantized\nGive the unquantized"),
        ({**CONFIG, "auto_map": {"AutoModel": "x.Y"}}, "the model needs code from its own repository, which is never"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, config: object, message: str) -> None:
    found = refusal(small(tmp_path / "m", config))
    assert found.startswith("FOLDER/config.json: ") and message in found


def test_fields_that_are_null_ask_for_nothing(tmp_path: Path) -> None:
    SOURCE.open(str(small(tmp_path / "m", {**CONFIG, "quantization_config": None, "auto_map": None})))


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"], ids=lambda c: repr(c[:8])
)
def test_a_configuration_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = small(tmp_path / "m")
    (folder / "config.json").write_bytes(content)
    assert refusal(folder).startswith("FOLDER/config.json: no JSON")


def test_a_configuration_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than 64 MB" in refusal(folder)


def test_a_folder_without_weights_or_configuration_says_what_is_there(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "there is no model.safetensors (there is pytorch_model.bin: pickles are never loaded)" in refusal(folder)
    (folder / "config.json").unlink()
    assert "there is no config.json\nA model's folder holds config.json" in refusal(folder)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.bool_])
def test_weights_that_are_integers_are_refused(tmp_path: Path, dtype: type[np.generic]) -> None:
    message = refusal(small(tmp_path / "m", a=np.ones((2, 2), np.float32), b=np.ones((2, 2), dtype)))
    assert "tensor 'b' is of type " in message and "already quantized\nGive the unquantized model." in message


def test_what_a_reference_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "x.gguf").write_text("")
    monkeypatch.chdir(tmp_path)
    yes = ["weights", "org/name", "hub:org/name", "missing", "a" * 300]
    no = ["file", "x.gguf", "missing.gguf"]
    assert [reference for reference in [*yes, *no] if SOURCE.accepts(reference)] == yes


@pytest.mark.parametrize("reference", ["/no/such/folder", "missing", "a" * 300, "hub:nothing", "a\0b", ""])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        SOURCE.open(reference)


def test_a_hub_id_is_downloaded_and_a_failure_told_in_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[str] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert not any("bin" in pattern or pattern == "*" for pattern in allow_patterns)
        if name == "org/gone":
            raise OSError("no\n  network")
        return str(tiny_model)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert SOURCE.open("hub:org/name").reference == "hub:org/name"
    assert SOURCE.open("org/name").folder == tiny_model
    with pytest.raises(ModelError, match="neither a folder here nor to be had from the hub: no network"):
        SOURCE.open("org/gone")
    assert asked == ["org/name", "org/name", "org/gone"]


_TENSORS = {"layers.0.a": torch.ones(2, 3), "layers.0.b": torch.ones(4, dtype=torch.bfloat16), "c": torch.ones(1, 1)}
_STORED = save(_TENSORS, metadata={"format": "pt"})
_HEADER = 8 + int.from_bytes(_STORED[:8], "little")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, _HEADER - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_in_the_header_give_tensors_or_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "flipped"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    data = bytearray(_STORED)
    for place, value in flips:
        data[place] = value
    (folder / "model.safetensors").write_bytes(data)
    try:
        files = SOURCE.open(str(folder))
        found = dict(files.read())
    except ModelError:
        return
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: info.shape for name, info in files.tensors.items()
    }


def test_a_file_that_is_replaced_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    files = SOURCE.open(str(folder))
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="can't be read"):
        list(files.read())
    assert load_file is not None
