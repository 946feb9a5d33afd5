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


def planned(folder: Path, *targets: str, **lora: Any) -> Any:
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+{n}=", "completion": str(2 * n)}) + "\n" for n in range(20)))
    adapter = {"use": "lora", "targets": list(targets), **lora}
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


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_an_adapters_pattern_that_matches_no_target_is_refused_before_work(tmp_path: Path, field: str) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    assert planned(folder, "q_proj", "v_proj", **{field: {"layers.1.self_attn.v_proj": 4}}).targets
    told = rf"the pattern 'k_proj' of adapter.{field} holds for no layer that is adapted\n.*end in: q_proj, v_proj"
    with pytest.raises(TargetError, match=told):
        planned(folder, "q_proj", "v_proj", **{field: {"q_proj": 4, "k_proj": 4}})
    with pytest.raises(TargetError, match="pattern 'layers.0.*q_proj' .*no layer(.|\n)*the first holds"):
        planned(folder, "all-linear", **{field: {"q_proj": 4, "layers.0.*q_proj": 2}})


def test_the_line_of_such_a_pattern_is_named(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    (folder / "rows.jsonl").write_text('{"text": "a b c"}\n' * 3)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: model\ndata: {train: model/rows.jsonl}\nadapter:\n  use: lora\n  rank_pattern:\n"
        "    q_proj: 4\n    q_prj: 8\n"
    )
    with pytest.raises(TargetError, match=r"Did you mean 'q_proj'\?") as told:
        graftkit.plan(recipe)
    assert told.value.where == f"{recipe}:7"


def test_a_pattern_is_judged_by_the_models_own_layers_where_the_files_names_are_not_those(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES["mixtral"])
    request = planned(folder, "all-linear", rank_pattern={"w1": 4})  # of the file's names, one expert's
    with pytest.raises(TargetError, match="the pattern 'w1' of adapter.rank_pattern holds for no layer"):
        certain_targets(request.bound, request.files)
