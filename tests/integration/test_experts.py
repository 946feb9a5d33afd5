"""A mixture's experts, quantized one by one and adapted on request, through the whole flow."""

from __future__ import annotations

from pathlib import Path

import graftkit
import pytest
from architectures import settings
from graftkit.errors import RecipeError
from graftkit.flow.reload import reload
from graftkit.testing import tiny_model_folder
from integration.conftest import RecipeMaker


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


def test_adapted_experts_are_refused_for_peft_before_a_row_is_encoded(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("mixtral"))
    recipe = make_recipe(model=str(model), export=["peft"], adapter={"use": "lora", "targets": ["experts.down_proj"]})
    with pytest.raises(RecipeError, match=r"experts are adapted \(down_proj\)"):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unadapted_experts_are_quantized_and_exported_for_peft(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("mixtral"))
    recipe = make_recipe(model=str(model), export=["peft"], quantizer="nf4")
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    stages = {stage["name"]: stage for stage in result.manifest["stages"]}
    assert stages["adapter"]["bits_per_frozen_weight"] < 5
