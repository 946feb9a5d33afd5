"""Folders that can't be used as they are, each refused with its file and what to do."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit.errors import ModelError, StorageError
from graftkit.interfaces.temporary import temporary_folder
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
        ({"model_type": "gemma3", "text_config": {"model_type": ["gemma3_text"]}}, "in its text_config is no text"),
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
    assert refusal(folder).startswith("FOLDER/config.json: it is no JSON")


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


BITS = {"F32": 32, "U8": 8, "I8": 8, "I32": 32, "U32": 32, "F8_E4M3": 8, "F4": 4, "F6_E2M3": 6, "F8_E8M0": 8, "C64": 64}


def write_zeros(folder: Path, types: Mapping[str, str]) -> None:
    """Writes tensors `[2, 4]` of types that numpy may not have."""
    header: dict[str, Any] = {}
    end = 0
    for name, type_ in types.items():
        start, end = end, end + BITS[type_]  # 8 numbers
        header[name] = {"dtype": type_, "shape": [2, 4], "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))


QUANTIZED = "quantization_config"
FORMATS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "bitsandbytes-nf4": (
        {QUANTIZED: {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"q.weight": "U8", "q.weight.absmax": "F32", "q.weight.quant_state.bitsandbytes__nf4": "U8"},
        "quantization_config: what is stored beside 'q.weight' .'nf4'. is no layout",
    ),
    "bitsandbytes-int8": (
        {QUANTIZED: {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"q.weight": "I8", "q.SCB": "F32"},
        r"tensor 'q.SCB' is F32 \[2, 4\]; its format has F32 \[2\] there",
    ),
    "bitsandbytes without scales": (
        {QUANTIZED: {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"q.weight": "I8"},
        "tensor 'q.weight' is of type I8, which bitsandbytes as it is known here does not have",
    ),
    "fp8": (
        {QUANTIZED: {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        {"q.weight": "F8_E4M3", "q.weight_scale_inv": "F32"},
        r"'q.weight_scale_inv' is \[2, 4\], where blocks of 128 x 128 have \[1, 1\]",
    ),
    "mxfp4": (
        {QUANTIZED: {"quant_method": "mxfp4"}},
        {"experts.down_proj_blocks": "U8", "experts.down_proj_scales": "U8"},
        r"'experts.down_proj_blocks' is \[2, 4\], not \[experts, out, groups, 16\]",
    ),
    "gptq": (
        {QUANTIZED: {"quant_method": "gptq", "bits": 4}},
        {"q.qweight": "I32", "q.qzeros": "I32", "q.scales": "F32"},
        r"tensor 'q.qweight' \[2, 4\] is no matrix of whole words",
    ),
    "awq": (
        {QUANTIZED: {"quant_method": "awq", "bits": 4}},
        {"q.qweight": "I32"},
        "there is no tensor 'q.scales', without which its weight means nothing",
    ),
    "compressed-tensors": (
        {"text_config": {"compression_config": {"quant_method": "compressed-tensors"}}},
        {"q.weight_packed": "I32", "q.weight_scale": "F32"},
        "text_config.compression_config: config_groups does not say how layers are stored",
    ),
    "of nobody": (
        {QUANTIZED: {"quant_method": "nobodys"}},
        {"q.weight": "F32"},
        "quantization_config: quant_method is 'nobodys', which is not known; known: awq, bitsandbytes",
    ),
    "a method that nothing is stored in": (
        {QUANTIZED: {"quant_method": "gptq", "bits": 4}},
        {"q.weight": "F32"},
        "quantization_config: it names gptq, in which no tensor is stored",
    ),
    "mlx": (
        {"quantization": {"bits": 4, "group_size": 64}},
        {"q.weight": "U32"},
        "quantization: the weights are quantized for MLX, which mlx-lm loads",
    ),
    "nameless": ({"quantization": {"bits": 4}}, {"q.weight": "U32"}, "quantization: it names no format that is known"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_quantized_folder_lacks_is_named(form: str, tmp_path: Path) -> None:
    config, types, told = FORMATS[form]
    write_zeros(small(tmp_path / "m", {**CONFIG, **config}), {"a.weight": "F32", **types})
    message = refusal(tmp_path / "m")
    assert message.startswith("FOLDER"), message
    assert re.search(told, message), message


@pytest.mark.parametrize("type_", ["F4", "F6_E2M3", "F8_E8M0", "C64"])
def test_a_type_of_few_bits_is_no_damage(type_: str, tmp_path: Path) -> None:
    """The file is whole: to download it again would not help."""
    write_zeros(small(tmp_path / "m"), {"q": type_})
    assert f"tensor 'q' is of type {type_}: the weights are already quantized\nGive the unquantized" in refusal(
        tmp_path / "m"
    )


def test_a_full_disk_is_not_the_folders_fault(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left") as caught, temporary_folder() as folder:
        SOURCE.open(str(shards)).save_tokenizer(folder)
    assert caught.value.where == str(folder) and "TMPDIR" in caught.value.hint


def test_a_tokenizers_file_of_gigabytes_is_the_folders_fault(shards: Path, tmp_path: Path) -> None:
    os.truncate(shards / "tokenizer_config.json", 10 << 30)
    with pytest.raises(ModelError, match="tokenizer_config.json can't be copied: it is larger than 64 MB"):
        SOURCE.open(str(shards)).save_tokenizer(tmp_path)


def test_a_pipe_that_has_come_into_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    files = SOURCE.open(str(small(tmp_path / "m")))
    (tmp_path / "m" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "m" / "model.safetensors")
    with pytest.raises(ModelError, match="this is no regular file"):
        list(files.read())
