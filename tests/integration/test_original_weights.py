"""Adapters that start from the original weights, through the whole flow: trained, stopped, exported, loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
from architectures import settings
from graftkit import Provider, hookimpl
from graftkit.errors import Cancelled, RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.flow.events import StepFinished
from graftkit.testing import isolated_host, tiny_model_folder
from integration.conftest import RecipeMaker


class Plugin:
    """Offers the adapters: what a run's folder names is loaded only where it is installed."""

    @hookimpl
    def graftkit_adapters(self) -> list[Provider]:
        names = {"pissa": "Pissa", "plain-pissa": "PlainPissa", "random-residual": "RandomResidual"}
        return [Provider(name=name, target=f"plugins_of_others.pissa:{cls}") for name, cls in names.items()]


def answer(source: Path) -> str:
    return "".join(reload(str(source), isolated_host(Plugin())).stream("7+7=", max_new_tokens=8))


@pytest.mark.parametrize(("name", "quantizer"), [("gpt2", "nf4"), ("phi3", "nf4"), ("llama", "none")])
def test_a_residual_is_trained_merged_proved_and_loaded_again(
    name: str, quantizer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings(name))
    recipe = make_recipe(
        model=str(model), quantizer=quantizer, adapter="plugins_of_others.pissa:Pissa", export=["merged"]
    )
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    assert result.before and result.after and result.after.holdout_loss < result.before.holdout_loss
    assert answer(result.folder) == answer(result.exports["merged"])


@pytest.mark.parametrize("export", ["peft", "extended-base"])
def test_a_residual_has_no_export_beside_the_base(export: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(adapter="plugins_of_others.pissa:Pissa", export=[export])
    with pytest.raises(RecipeError, match=f"the export '{export}' can't be written"):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_subtracted_is_plain_lora_to_peft(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(adapter="plugins_of_others.pissa:PlainPissa", quantizer="nf4", export=["peft", "merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    folders = [result.folder, result.exports["peft"], result.exports["merged"]]
    assert len({answer(folder) for folder in folders}) == 1


def test_a_start_that_is_drawn_is_drawn_again_when_the_run_is_loaded(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """By the run's own seed."""
    training = {"steps": 2, "tokens_per_step": 256, "device": "cpu", "seed": 3}
    adapter = "plugins_of_others.pissa:RandomResidual"
    result = graftkit.run(make_recipe(adapter=adapter, training=training, export=["merged"]), out=tmp_path / "run")
    assert answer(result.folder) == answer(result.exports["merged"])


def test_a_stopped_run_goes_on_from_the_same_residual(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(adapter="plugins_of_others.pissa:Pissa", quantizer="nf4")
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    cancel = graftkit.CancelToken()

    def stop(event: Any) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "stopped", on_event=stop, cancel=cancel)
    resumed = graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    name = "adapter/adapter.safetensors"
    assert resumed.manifest["artifacts"][name] == whole.manifest["artifacts"][name]
