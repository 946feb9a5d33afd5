"""A mixture's experts, quantized one by one and adapted on request, through the whole flow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from architectures import settings
from click.testing import CliRunner
from graftkit.cli import verify
from graftkit.errors import RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.report.summary import proof_text
from graftkit.testing import tiny_model_folder
from integration.conftest import RecipeMaker
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_experts_are_quantized_adapted_merged_and_proved(name: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings(name))
    sections = {"quantizer": "nf4", "adapter": {"use": "lora", "rank": 2, "targets": ["all-linear", "experts"]}}
    result = graftkit.run(make_recipe(model=str(model), export=["merged"], **sections), out=tmp_path / "run")
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    before, after = result.before, result.after
    assert before is not None and after is not None and after.holdout_loss < before.holdout_loss
    stages = {stage["name"]: stage for stage in result.manifest["stages"]}
    assert stages["adapter"]["adapted_layers"] == 2 * 4 + 2 * 2 * 4
    sources = [result.folder, result.exports["merged"]]
    assert len({"".join(reload(str(source)).stream("7+7=", max_new_tokens=8)) for source in sources}) == 1


def test_a_mixture_whose_choices_rounding_turns_is_proved_with_the_trained_ones(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Stored in float32 and exported in bfloat16 it was refused: the rounded router takes other experts."""
    model = tiny_model_folder(tmp_path / "model", **settings("qwen3_moe"))
    weights = load_file(model / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("gate.weight"):
            weights[name] = weight[:1] + 0.05 * weight
        elif name.endswith("down_proj.weight"):
            weights[name] = 30 * weight
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    half = {"use": "merged", "dtype": "bfloat16", "onto": "original"}
    result = graftkit.run(make_recipe(model=str(model), export=[half]), out=tmp_path / "run")
    proof = result.manifest["exports"]["merged"]["proof"]
    turned, choices = proof["chosen_otherwise"]
    assert proof["status"] == "proved" and 0 < turned < choices / 2
    assert f"of which {turned} of {choices} are nearly even" in proof_text(proof)
    assert any(f"turns {turned:,} of {choices:,} choices" in notice for notice in result.manifest["notices"])


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_adapted_experts_are_exported_for_peft_proved_and_loaded_again(
    name: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings(name))
    adapter = {"use": "lora", "rank": 2, "dropout": 0.1, "targets": ["all-linear", "experts"]}
    adapter |= {"rank_pattern": {"experts.down_proj": 3}, "alpha_pattern": {"down_proj": 5}}
    result = graftkit.run(
        make_recipe(model=str(model), export=["peft"], quantizer="nf4", adapter=adapter), out=tmp_path / "run"
    )
    proof = result.manifest["exports"]["peft"]["proof"]
    assert (proof["status"], "logits" in proof["covers"]) == ("proved", True)
    folder = result.exports["peft"]
    assert json.loads((folder / "adapter_config.json").read_text())["target_parameters"] == [
        "experts.down_proj",
        "experts.gate_up_proj",
    ]
    assert CliRunner().invoke(verify.command, [str(folder)]).exit_code == 0
    answers = ["".join(reload(str(source)).stream("7+7=", max_new_tokens=8)) for source in (result.folder, folder)]
    assert answers[0] == answers[1]


def test_adapted_experts_beside_new_tokens_are_exported_with_their_base(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("qwen3_moe"))
    adapter = {"use": "lora", "rank": 2, "targets": ["experts"]}
    result = graftkit.run(
        make_recipe(model=str(model), tokenizer={"extend": {"words": ["graftkit"]}}, adapter=adapter)
        | {"export": ["extended-base", "peft"]},
        out=tmp_path / "run",
    )
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    sources = [result.folder, *result.exports.values()]
    assert len({"".join(reload(str(source)).stream("7+7=", max_new_tokens=8)) for source in sources}) == 1


def test_experts_that_peft_can_not_load_are_refused_before_a_row_is_encoded(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: by a peft that does not wrap parameters of this shape."""
    from peft.tuners.lora.layer import ParamWrapper

    def refuse(*args: Any, **keywords: Any) -> None:
        raise ValueError("lora.ParamWrapper only supports 2d parameters")

    monkeypatch.setattr(ParamWrapper, "_get_in_out_features", refuse)
    model = tiny_model_folder(tmp_path / "model", **settings("mixtral"))
    recipe = make_recipe(model=str(model), export=["peft"], adapter={"use": "lora", "targets": ["experts.down_proj"]})
    with pytest.raises(RecipeError, match=r"experts are adapted \(down_proj\), which PEFT can't load here: .* 2d"):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unadapted_experts_are_quantized_and_exported_for_peft(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("mixtral"))
    recipe = make_recipe(model=str(model), export=["peft"], quantizer="nf4")
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    stages = {stage["name"]: stage for stage in result.manifest["stages"]}
    assert stages["adapter"]["bits_per_frozen_weight"] < 5
