"""An adapter's preset fills in what the recipe is silent on, in any section, or is refused with plugin and section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from graftkit import PluginHost, Provider, ProviderConfig, hookimpl, load_recipe
from graftkit.errors import PluginError, RecipeError
from graftkit.recipe.bind import BoundRecipe, bind

START = "model: ./m\nadapter: mixed\n"
ROWS = "data: {train: a.jsonl}\n"
EVERYWHERE: Mapping[str, Any] = {
    "data": {"max_length": 256, "holdout": 0.2},
    "quantizer": {"use": "nf4", "double_quant": True},
    "tokenizer": {"extend": {"tokens": 5}, "embedding_warmup_steps": 2},
    "training": {"steps": 100, "learning_rate": 1e-3, "dtype": "bfloat16"},
    "evaluation": {"answers": 8},
    "export": ["peft", {"use": "merged", "dtype": "float16"}],
}


class MixedConfig(ProviderConfig):
    rank: int = 8


class Mixed:
    config_class = MixedConfig


class SparseConfig(ProviderConfig):
    preset = {"training": {"steps": 3}}


class Sparse:
    config_class = SparseConfig


class ThirdParty:
    @hookimpl
    def graftkit_adapters(self) -> list[Provider]:
        return [Provider(name="mixed", target=f"{__name__}:Mixed", config=f"{__name__}:MixedConfig")]

    @hookimpl
    def graftkit_quantizers(self) -> list[Provider]:
        return [Provider(name="sparse", target=f"{__name__}:Sparse", config=f"{__name__}:SparseConfig")]


@pytest.fixture
def bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    host = PluginHost(plugins=[ThirdParty()])

    def make(preset: Mapping[str, Any], text: str = "", *assignments: str, rows: str = ROWS) -> BoundRecipe:
        monkeypatch.setattr(MixedConfig, "preset", preset)
        (tmp_path / "recipe.yaml").write_text(START + rows + text)
        return bind(load_recipe(tmp_path / "recipe.yaml", assignments), host)

    return make


def refusal(bound: Any, *asked: Any) -> str:
    with pytest.raises(PluginError) as caught:
        bound(*asked)
    return str(caught.value)


def test_every_section_that_is_not_said_is_the_presets(bound: Any) -> None:
    found = bound(EVERYWHERE)
    recipe = found.recipe
    assert (recipe.data.max_length, recipe.data.holdout) == (256, 0.2)
    assert (recipe.training.steps, recipe.training.learning_rate, recipe.training.dtype) == (100, 1e-3, "bfloat16")
    assert recipe.tokenizer.extend.tokens == 5 and recipe.tokenizer.embedding_warmup_steps == 2
    assert recipe.evaluation.answers == 8
    assert found.quantizer.config.model_dump() == {"blocksize": 64, "double_quant": True}
    assert [choice.registered.provider.name for _, choice in found.exports] == ["peft", "merged"]
    assert found.initializer.registered.provider.name == "mean"


def test_every_key_that_is_said_is_the_recipes(bound: Any) -> None:
    text = (
        "training: {learning_rate: 2e-4}\nevaluation: {max_new_tokens: 4}\n"
        "quantizer: nf4\nexport: merged\n"
        "tokenizer: {embedding_warmup_steps: 3, train: {use: byte-level, vocab_size: 300}}\n"
    )
    recipe = (found := bound(EVERYWHERE, text, rows="data: {train: a.jsonl, holdout: 0}\n")).recipe
    assert (recipe.data.max_length, recipe.data.holdout) == (256, 0)
    assert (recipe.training.steps, recipe.training.learning_rate) == (100, 2e-4)
    assert (recipe.evaluation.answers, recipe.evaluation.max_new_tokens) == (8, 4)
    assert recipe.tokenizer.extend is None and recipe.tokenizer.embedding_warmup_steps == 3
    assert found.quantizer.config.model_dump() == {"blocksize": 64, "double_quant": False}
    assert [choice.registered.provider.name for _, choice in found.exports] == ["merged"]


def test_who_says_epochs_is_not_silent_on_steps(bound: Any) -> None:
    recipe = bound(EVERYWHERE, "", "training.epochs=2").recipe
    assert (recipe.training.epochs, recipe.training.steps, recipe.training.learning_rate) == (2, None, 1e-3)


def test_the_resolved_recipe_says_all_of_it(bound: Any) -> None:
    first = bound(EVERYWHERE, "training: {epochs: 2}\n")
    resolved = first.resolved()
    again = bind(load_recipe(resolved), PluginHost(plugins=[ThirdParty()]))
    assert again.resolved() == resolved
    assert resolved["training"]["learning_rate"] == 1e-3 and resolved["tokenizer"]["extend"]["tokens"] == 5


def test_a_preset_is_left_as_it_is(bound: Any) -> None:
    preset = {"training": {"steps": 7}, "evaluation": {"answers": 8}}
    bound(preset, "training: {learning_rate: 2e-4}\n", "evaluation.max_new_tokens=4")
    bound(preset)
    assert preset == {"training": {"steps": 7}, "evaluation": {"answers": 8}}


@pytest.mark.parametrize("section", ["model", "adapter", "plugins", "trainning"])
def test_a_section_that_no_preset_can_fill_is_refused(bound: Any, section: str) -> None:
    message = refusal(bound, {section: {"use": "lora"}})
    assert message.startswith(f"plugin 'ThirdParty', preset of 'mixed': a preset can't fill the section '{section}'")
    assert message.endswith(
        "These it can: tokenizer, data, quantizer, objective, training, memory, evaluation, export."
    )


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"training": {"stepps": 3}}, "training: unknown key 'training.stepps'\nDid you mean 'steps'?"),
        ({"training": {"steps": "many"}}, "training: training.steps: must be an integer, not 'many'"),
        ({"training": 3}, "training: training: must be a mapping"),
        ({"quantizer": {"use": "nf5"}}, "quantizer: no quantizer is called 'nf5'"),
        ({"quantizer": {"use": "nf4", "blocks": 1}}, "quantizer: unknown key 'quantizer.blocks'"),
        ({"export": ["peft", {"use": "merged", "dtype": "x"}]}, "export: export.1.dtype: must be "),
        ({"tokenizer": {"train": {"use": "x", "vocab_size": 9}}}, "tokenizer: no tokenizer is called 'x'"),
        (
            {"training": {"tokens_per_step": 64}},
            "training: data.max_length (512) is more than training.tokens_per_step",
        ),
    ],
)
def test_what_a_preset_says_wrongly_is_the_plugins_fault(bound: Any, preset: Mapping[str, Any], message: str) -> None:
    said = refusal(bound, preset, "", "data.max_length=512")
    assert said.startswith(f"plugin 'ThirdParty', preset of 'mixed': {message}")


def test_what_the_recipe_says_wrongly_is_not(bound: Any) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml:4: unknown key 'quantizer\.sparsty'"):
        bound(EVERYWHERE, "quantizer: {use: nf4, sparsty: 1}\n")


def test_a_preset_of_another_kind_of_provider_is_not_passed_over(bound: Any) -> None:
    message = refusal(bound, {}, "quantizer: sparse\n")
    assert message == "plugin 'ThirdParty': 'sparse' has a preset for training, but only an adapter's is read"
