"""Targets are judged from the file's names where these are the model's, and else by the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import TargetError
from graftkit.flow.targets import certain_targets
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from safetensors.torch import load_file, save_file


def planned(folder: Path, *targets: str) -> Any:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+{n}=", "completion": str(2 * n)}) + "\n" for n in range(20)))
    adapter = {"use": "lora", "targets": list(targets)}
    return graftkit.plan({"model": str(folder), "data": {"train": str(rows)}, "adapter": adapter})


def test_a_path_that_an_older_file_names_otherwise_is_the_models(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["gpt2"])
    tensors = load_file(folder / "model.safetensors")
    older = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    assert planned(folder, "transformer.h.1.attn.c_attn").targets == ["transformer.h.1.attn.c_attn"]
    request = planned(folder, "c_attn")
    assert request.targets == ["h.0.attn.c_attn", "h.1.attn.c_attn"]
    assert certain_targets(request.bound, request.files) == [f"transformer.{name}" for name in request.targets]


def test_an_expert_of_the_file_is_no_layer_of_the_model(tmp_path: Path) -> None:
    request = planned(tiny_model_folder(tmp_path / "model", **ARCHITECTURES["mixtral"]), "w1")
    with pytest.raises(TargetError, match="'w1' matches no layer of the model\nIts layers end in: k_proj, o_proj"):
        certain_targets(request.bound, request.files)
