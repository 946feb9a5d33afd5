"""Folders that can't be used as they are, each refused with its file and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit.errors import ModelError
from graftkit.testing import tiny_model_folder
from graftkit_models.huggingface import HuggingFaceSource
from safetensors.numpy import save_file

SOURCE = HuggingFaceSource()
CONFIG = {"model_type": "llama"}


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.mark.parametrize("place", ["before", "inside", "after", "end"])
def test_a_truncated_shard_is_refused(shards: Path, tmp_path: Path, place: str) -> None:
    shutil.copytree(shards, tmp_path / "m")
    shard = max((tmp_path / "m").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    size = shard.stat().st_size
    cut = {"before": 4, "inside": 50, "after": size // 2, "end": size - 1}[place]
    shard.write_bytes(shard.read_bytes()[:cut])
    message = refusal(tmp_path / "m")
    assert shard.name in message and "truncated" in message and "Download or copy the file again." in message


def test_a_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "m")
    shard = min((tmp_path / "m").glob("*.safetensors"))
    shard.unlink()
    assert f"the shard {shard.name} is missing\nDownload it again." in refusal(tmp_path / "m")


def test_a_tensor_in_two_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "m")
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
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "it has no model_type"),
        ({"model_type": 3}, "it has no model_type"),
        ([], "no JSON object"),
        ({**CONFIG, "quantization_config": {"bits": 4}}, "the weights are already quantized\nGive the unquantized"),
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
