"""Targets are judged from the file's names where these are the model's, and else by the model itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graftkit
import pytest
import torch
from graftkit import PluginHost, ProviderConfig
from graftkit.errors import PluginError, TargetError
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.planning.targets import certain_targets, forecast
from graftkit.model.adapt import adapt
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from safetensors.torch import load_file, save_file


def planned(folder: Path, *targets: str, quantizer: Any = "none", dtype: str = "float32", **lora: Any) -> Any:
    rows = folder / "records.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+{n}=", "completion": str(2 * n)}) + "\n" for n in range(20)))
    adapter = {"use": "lora", "targets": list(targets), **lora}
    recipe = {"model": str(folder), "data": {"train": str(rows)}, "adapter": adapter, "quantizer": quantizer}
    return graftkit.plan({**recipe, "training": {"dtype": dtype}})


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
    with pytest.raises(
        TargetError,
        match="'w1' matches no layer of the model\nIts layers end in: embed_tokens, k_proj, lm_head, o_proj",
    ):
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
    (folder / "records.jsonl").write_text('{"text": "a b c"}\n' * 3)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: model\ndata: {train: model/records.jsonl}\nadapter:\n  use: lora\n  rank_pattern:\n"
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


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "quantizer", ["none", "int8", "nf4", "stored", {"use": "nf4", "double_quant": True, "blocksize": 32}]
)
def test_what_is_forecast_is_what_is_made(tmp_path: Path, architecture: str, quantizer: Any) -> None:
    """From the layers of the skeleton; the plan says the same from the file's names where it can."""
    folder = tiny_model_folder(tmp_path / "model", **ARCHITECTURES.get(architecture, {}))
    lora = {"rank": 3, "rank_pattern": {"1.*": 5}}
    request = planned(folder, "all-linear", quantizer=quantizer, dtype="bfloat16", **lora)
    files, bound, host = request.files, request.bound, PluginHost()
    layers, targets = check_base_model(files), certain_targets(bound, files)
    network = load_base_model(
        files,
        host.registry.create(bound.quantizer.registered, bound.quantizer.config),
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
    )
    adapted = adapt(network, host.registry.create(bound.adapter.registered, bound.adapter.config), targets, seed=0)
    made = {
        "adapter_parameters": sum(p.numel() for w in adapted.values() for p in w.trainable_parameters().values()),
        "frozen_linear_bytes": sum(weight.frozen.nbytes for weight in adapted.values()),
    }
    assert forecast(bound, layers, targets) == made
    assert architecture == "gpt2" or request.forecast == made  # GPT-2's file has matrices the other way round


def test_a_provider_that_does_not_tell_makes_no_forecast(tmp_path: Path) -> None:
    request = planned(tiny_model_folder(tmp_path / "model"), "q_proj")
    told = SimpleNamespace(recipe=request.bound.recipe, adapter=request.bound.adapter, quantizer=SimpleNamespace())
    told.quantizer.config = ProviderConfig()
    layers = check_base_model(request.files)
    found = forecast(told, layers, request.targets)  # type: ignore[arg-type]
    assert found == {"adapter_parameters": 2 * 16 * (64 + 64), "frozen_linear_bytes": None}


def test_names_that_are_not_the_models_make_no_forecast_in_the_plan(tmp_path: Path) -> None:
    request = planned(tiny_model_folder(tmp_path / "model", **ARCHITECTURES["mixtral"]), "all-linear")
    assert set(request.forecast.values()) == {None}


def test_an_older_manifest_names_a_provider_that_had_no_fields_then() -> None:
    make = InstalledProviders(PluginHost()).make
    facts = {"target": "graftkit_quantizers.dense:Dense", "config_class": "", "config": {}}
    current = {**facts, "config_class": "graftkit_quantizers.config:DenseConfig"}
    assert type(make("quantizer", facts)) is type(make("quantizer", current))
    with pytest.raises(PluginError, match="no installed plugin offers"):
        make("quantizer", {**facts, "config_class": "graftkit_quantizers.config:Nf4Config"})
