"""Folders as transformers writes them, and everything that a folder may be instead."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from graftkit.errors import ModelError
from graftkit.testing import tiny_model_folder, tiny_tokenizer_files
from graftkit_models.huggingface import HuggingFaceSource
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save

SOURCE = HuggingFaceSource()
CONFIG = {"model_type": "llama"}


@pytest.fixture(scope="session")
def sharded_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("sharded") / "tiny", shards=4)


def small(folder: Path) -> Path:
    """Writes a folder with one tensor and no tokenizer."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a": np.ones((2, 3), np.float32)}, folder / "model.safetensors")
    return folder


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

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert not local_files_only
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
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    (tmp_path / "runs/quickstart/manifest.json").touch()
    with pytest.raises(ModelError, match="no such folder: runs has none of that name") as caught:
        SOURCE.open("runs/quickstrt")
    assert caught.value.hint == "Did you mean 'quickstart'? The hub's model of that name is hub:runs/quickstrt."
    assert asked == ["org/name", "org/name", "org/gone"]


def test_the_tokenizer_of_a_hub_id_is_fetched_without_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert not local_files_only
        repository = ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "vocab.txt", "x.gguf"]
        fetched = [file for file in repository if any(fnmatch(file, pattern) for pattern in allow_patterns)]
        assert (name, fetched) == ("org/name", ["config.json", "tokenizer.json", "vocab.txt"])
        return str(tiny_model)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert SOURCE.fetch_tokenizer("org/name") == SOURCE.fetch_tokenizer("hub:org/name") == tiny_model
    assert SOURCE.fetch_tokenizer(str(tiny_model)) is None and SOURCE.fetch_tokenizer("name") is None


_TENSORS = {"layers.0.a": torch.ones(2, 3), "layers.0.b": torch.ones(4, dtype=torch.bfloat16), "c": torch.ones(1, 1)}
_STORED = save(_TENSORS, metadata={"format": "pt"})
_HEADER = 8 + int.from_bytes(_STORED[:8], "little")


@settings(max_examples=300)
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
    with pytest.raises(ModelError, match="the file was changed or replaced after its header was read"):
        list(files.read())


def test_a_sentencepiece_model_is_a_tokenizer_where_there_is_no_tokenizer_json(tmp_path: Path) -> None:
    folder = small(tmp_path / "model")
    for name, data in {"tokenizer.model": b"\x0a\x0e\x0a\x05<unk>", "tokenizer_config.json": b"{}"}.items():
        (folder / name).write_bytes(data)
    files = SOURCE.open(str(folder))
    assert files.tokenizer_backend == "sentencepiece"
    (tmp_path / "saved").mkdir()
    files.save_tokenizer(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"tokenizer.model", "tokenizer_config.json"}
    (folder / "tokenizer.json").write_text("{}")
    assert files.tokenizer_backend == "huggingface"


def test_a_tiktoken_file_called_tokenizer_model_is_not_taken_for_one(tmp_path: Path) -> None:
    folder = small(tmp_path / "model")
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\n")
    with pytest.raises(ModelError, match=r"no tokenizer\.json \(there is tokenizer\.model\)"):
        SOURCE.open(str(folder)).save_tokenizer(tmp_path)


@pytest.mark.parametrize("gone", [False, True], ids=["shards are there", "shards are gone"])
def test_beside_an_index_of_another_save_the_single_file_is_the_model_as_it_is_to_transformers(
    tiny_model: Path, sharded_model: Path, tmp_path: Path, gone: bool
) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    for path in sharded_model.glob("model*"):
        if path.name.endswith(".json") or not gone:
            data = path.read_bytes()
            (folder / path.name).write_bytes(data[:-4] + b"\0\0\0\1" if path.suffix == ".safetensors" else data)
    files = SOURCE.open(str(folder))
    assert [path.name for path in files.files] == ["config.json", "model.safetensors"]
    theirs = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in files.read())


def test_numbers_that_json_lacks_are_read_as_transformers_writes_them(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    limits = {"time_step_limit": [0.0, {"__float__": "Infinity"}], "low": {"__float__": "-Infinity"}}
    other = {"kept": {"__float__": "one"}, "text": "Infinity"}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **limits, **other}))
    config = SOURCE.open(str(folder)).config
    inf = float("inf")
    assert config == {**CONFIG, "time_step_limit": [0.0, inf], "low": -inf, **other}


def test_integers_that_are_no_weights_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    tensors = {
        "h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "position_ids": torch.arange(1 << 40, (1 << 40) + 3),
        "w": torch.ones(2),
    }
    (tmp_path / "model.safetensors").write_bytes(save(tensors))
    found = dict(SOURCE.open(str(tmp_path)).read())
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
