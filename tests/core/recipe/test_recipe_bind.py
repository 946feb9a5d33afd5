"""Every name in a recipe becomes a provider, and each provider judges its own fields."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from graftkit import PluginHost, Provider, ProviderConfig, hookimpl, load_recipe
from graftkit.errors import PluginError, ProviderError, RecipeError
from graftkit.interfaces.objective_config import (
    AnyObjectiveConfig,
    EmbeddingConfig,
    MaskedConfig,
    ObjectiveConfig,
    RetrievalConfig,
    SampledConfig,
    SequenceConfig,
    TokenConfig,
)
from graftkit.recipe.bind import BoundRecipe, bind
from pydantic import field_serializer, model_validator

HOST = PluginHost(strict=True)
START = "model: ./m\ndata: {train: a.jsonl}\n"


def bound(folder: Path, text: str = "", *assignments: str, host: PluginHost = HOST) -> BoundRecipe:
    (folder / "recipe.yaml").write_text(START + text)
    return bind(load_recipe(folder / "recipe.yaml", assignments), host)


def refusal(tmp_path: Path, text: str, error: type[Exception] = RecipeError) -> str:
    with pytest.raises(error) as caught:
        bound(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_lora_on_plain_weights_is_what_silence_means(tmp_path: Path) -> None:
    found = bound(tmp_path)
    assert found.adapter.registered.qualified_name == "graftkit:lora"
    assert found.quantizer.registered.qualified_name == "graftkit:none"
    assert found.exports == ()


def test_qlora_picks_nf4_with_double_quantization_where_the_recipe_is_silent(tmp_path: Path) -> None:
    found = bound(tmp_path, "adapter: qlora\n")
    assert found.quantizer.registered.provider.name == "nf4"
    assert found.quantizer.config.model_dump() == {"blocksize": 64, "double_quant": True}
    assert found.resolved()["quantizer"] == {"use": "nf4", "blocksize": 64, "double_quant": True}


@pytest.mark.parametrize(
    ("quantizer", "name", "config"),
    [
        ("int8", "int8", {"products": "float"}),
        ("none", "none", {}),
        ("nf4", "nf4", {"blocksize": 64, "double_quant": False}),
    ],
)
def test_a_quantizer_that_the_recipe_names_is_taken_as_it_says(
    tmp_path: Path, quantizer: str, name: str, config: object
) -> None:
    found = bound(tmp_path, f"adapter: qlora\nquantizer: {quantizer}\n")
    assert (found.quantizer.registered.provider.name, found.quantizer.config.model_dump()) == (name, config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "adapter:\n  use: lora\n  rnak: 8\n",
            "recipe.yaml:5: unknown key 'adapter.rnak'\nDid you mean 'rank'? Known: ",
        ),
        (
            "adapter:\n  use: lora\n  target: x\n",
            "recipe.yaml:5: unknown key 'adapter.target'\nDid you mean 'targets'?",
        ),
        (
            "export:\n- peft\n- use: merged\n  nmae: x\n",
            "recipe.yaml:6: unknown key 'export.1.nmae'\nDid you mean 'name'?",
        ),
        ("export:\n- use: peft\n  dtype: x\n", "recipe.yaml:5: unknown key 'export.0.dtype'"),
        ("adapter: {use: lora, rank: 0}\n", "recipe.yaml:3: adapter.rank: must be greater than or equal to 1, not 0"),
        ("adapter: {use: lora, alpha: .inf}\n", "recipe.yaml:3: adapter.alpha: must be a finite number, not inf"),
        ("quantizer: {use: nf4, blocksize: 63}\n", "recipe.yaml:3: quantizer.blocksize: must be 32, 64"),
        ("quantizer:\n  use: int8\n  double_quant: true\n", "recipe.yaml:5: unknown key 'quantizer.double_quant'"),
    ],
)
def test_a_providers_own_field_is_judged_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapter: lorra\n", "recipe.yaml:3: no adapter is called 'lorra'\nDid you mean 'lora'?"),
        ("quantizer: {use: nf5}\n", "recipe.yaml:3: no quantizer is called 'nf5'\nDid you mean 'nf4'?"),
        ("export:\n- peft\n- use: mergd\n", "recipe.yaml:5: no exporter is called 'mergd'\nDid you mean 'merged'?"),
        ("adapter: no.such:Thing\n", "recipe.yaml:3: 'no.such:Thing' can't be used: "),
    ],
)
def test_a_name_that_nobody_offers_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text, ProviderError).startswith(message)


def test_an_option_judged_by_a_provider_is_named_as_an_option(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        bound(tmp_path, "adapter: lora\n", "adapter.rank=none")
    assert caught.value.where == "--set adapter.rank=none"


class TernaryConfig(ProviderConfig):
    sparsity: float = 0.5


class Ternary:
    config_class = TernaryConfig


class ThirdParty:
    @hookimpl
    def graftkit_quantizers(self) -> list[Provider]:
        config = f"{__name__}:TernaryConfig"
        return [Provider(name="ternary", target=f"{__name__}:Ternary", config=config)]


@pytest.mark.parametrize("name", ["ternary", "ThirdParty:ternary", f"{__name__}:Ternary"])
def test_the_resolved_recipe_is_a_recipe_that_means_the_same(tmp_path: Path, name: str) -> None:
    host = PluginHost(plugins=[ThirdParty()])
    text = (
        f"quantizer: {{use: '{name}', sparsity: 0.25}}\nexport: [peft, {{use: merged, name: half, dtype: float16}}]\n"
    )
    adapter = "adapter: {use: qlora, rank: 4, targets: [q_proj], rank_pattern: {'0.*': 8}}\n"
    first = bound(tmp_path, text + adapter, host=host)
    resolved = first.resolved()
    again = bind(load_recipe(resolved), host)
    assert again.resolved() == resolved
    assert again.providers() == first.providers()
    assert resolved["quantizer"] == {"use": name, "sparsity": 0.25}
    defaults = {
        "alpha": 32.0,
        "dropout": 0.0,
        "rslora": False,
        "dora": False,
        "init": "kaiming",
        "alpha_pattern": {},
        "lora_plus_ratio": 1.0,
        "eva_rho": 2.0,
        "eva_tokens": 4096,
        "modules_to_save": [],
        "ensure_weight_tying": False,
    }
    said = {"use": "qlora", "from": None, "targets": ["q_proj"], "rank": 4, "rank_pattern": {"0.*": 8}}
    assert resolved["adapter"] == said | defaults


class OddConfig(ProviderConfig):
    """A config model whose validators do what a field says."""

    does: str = ""
    anything: Any = None

    @model_validator(mode="wrap")
    @classmethod
    def _odd(cls, value: Any, handler: Any) -> Any:
        does = value.get("does", "")
        if does == "leave":
            raise SystemExit(0)
        if does == "interrupt":
            raise KeyboardInterrupt
        if does == "fail":
            raise KeyError("does")
        if does == "mute":
            raise type("Mute", (ValueError,), {"__str__": lambda self: 1 / 0})
        if does == "disturb":
            os.environ["ODD_CANARY"] = "1"
            value["does"] = "changed"
        return 3 if does == "other" else handler(value)

    @field_serializer("does")
    def _told(self, does: str) -> Any:
        return object() if does == "unwritable" else does


class Odd:
    config_class = OddConfig


class OddObjectiveConfig(ObjectiveConfig):
    """Facts of an objective."""


class OddObjective:
    config_class = OddObjectiveConfig


class OddPlugin:
    """Offers them."""

    @hookimpl
    def graftkit_quantizers(self) -> list[Provider]:
        return [Provider(name="odd", target=f"{__name__}:Odd", config=f"{__name__}:OddConfig")]

    @hookimpl
    def graftkit_objectives(self) -> list[Provider]:
        return [Provider(name="odd", target=f"{__name__}:OddObjective", config=f"{__name__}:OddObjectiveConfig")]


@pytest.mark.parametrize(
    ("derived", "fact", "value", "known"),
    [
        (ObjectiveConfig, "head", "none", "'language'"),
        (ObjectiveConfig, "head", "sequence", "'language'"),
        (ObjectiveConfig, "learns_from", 1, "'answers', 'pairs', 'labelled', 'texts'"),
        (ObjectiveConfig, "learns_from", "prompts", "'answers', 'pairs', 'labelled', 'texts'"),
        (ObjectiveConfig, "minimizes", "all", "'likelihood', 'tokens', 'examples', 'step'"),
        (ObjectiveConfig, "uses_reference", 3, "False, True"),
        (SampledConfig, "minimizes", "step", "'examples'"),
        (MaskedConfig, "learns_from", "answers", "'texts'"),
        (SequenceConfig, "learns_from", None, "'pairs', 'labels', 'label_sets', 'scores'"),
        (SequenceConfig, "learns_from", "tags", "'pairs', 'labels', 'label_sets', 'scores'"),
        (TokenConfig, "minimizes", "examples", "'tokens'"),
        (RetrievalConfig, "uses_reference", True, "False"),
    ],
)
def test_an_objective_that_says_what_none_of_its_kind_is_is_named(
    tmp_path: Path, derived: type, fact: str, value: Any, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = type("OddObjectiveConfig", (derived,), {fact: value} if value is not None else {})
    monkeypatch.setattr(sys.modules[__name__], "OddObjectiveConfig", config)
    monkeypatch.setattr(OddObjective, "config_class", config)
    told = f"plugin 'OddPlugin': objective 'odd': {fact} is {value!r}; with {derived.__name__} it is one of {known}"
    with pytest.raises(PluginError, match=told):
        bound(tmp_path, "objective: odd\n", host=PluginHost(plugins=[OddPlugin()]))


@pytest.mark.parametrize("derived", [AnyObjectiveConfig, EmbeddingConfig])
def test_an_objective_of_no_kind_is_named(tmp_path: Path, derived: type, monkeypatch: pytest.MonkeyPatch) -> None:
    config = type("OddObjectiveConfig", (derived,), {})
    monkeypatch.setattr(sys.modules[__name__], "OddObjectiveConfig", config)
    monkeypatch.setattr(OddObjective, "config_class", config)
    with pytest.raises(PluginError, match="plugin 'OddPlugin': objective 'odd': its config derives from none "):
        bound(tmp_path, "objective: odd\n", host=PluginHost(plugins=[OddPlugin()]))


@pytest.mark.parametrize(
    ("does", "error", "message"),
    [
        ("leave", PluginError, "plugin 'OddPlugin': the check of the fields of its quantizer 'odd' raised SystemExit"),
        ("interrupt", PluginError, "plugin 'OddPlugin': .* raised KeyboardInterrupt"),
        ("fail", PluginError, "plugin 'OddPlugin': .* raised KeyError: 'does'"),
        ("mute", PluginError, "plugin 'OddPlugin': .* raised ZeroDivisionError"),
        ("other", PluginError, "plugin 'OddPlugin': .* gave an int, not a OddConfig"),
        ("unwritable", PluginError, "plugin 'OddPlugin': .* raised PydanticSerializationError"),
    ],
)
def test_a_config_model_that_fails_is_named(tmp_path: Path, does: str, error: type[Exception], message: str) -> None:
    host = PluginHost(plugins=[OddPlugin()])
    with pytest.raises(error, match=message):
        bound(tmp_path, f"quantizer: {{use: odd, does: {does}}}\n", host=host)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "anything: a number that"),
        ({"a": [1, float("inf")]}, "anything.a.1: a number that"),
        ({1: "a"}, "anything: a dict that"),
        (date(2020, 1, 1), "anything: a date that"),
        (b"x", "anything: a bytes that"),
        ({3}, "anything: a set that"),
    ],
)
def test_a_value_that_no_manifest_brings_back_is_refused(value: Any, told: str) -> None:
    """NaN would be null, and bytes a text, for whoever loads the export."""
    recipe = {"model": "./m", "data": {"train": "a"}, "quantizer": {"use": "odd", "anything": value}}
    with pytest.raises(RecipeError, match=f"quantizer.{told} no manifest can keep"):
        bind(load_recipe(recipe), PluginHost(plugins=[OddPlugin()]))


def test_what_a_config_model_changes_is_put_back(tmp_path: Path) -> None:
    host = PluginHost(plugins=[OddPlugin()])
    found = bound(tmp_path, "quantizer: {use: odd, does: disturb}\n", host=host)
    assert "ODD_CANARY" not in os.environ and "changed the environment (ODD_CANARY)" in host.notices[0]
    assert found.recipe.quantizer is not None and found.recipe.quantizer.options == {"does": "disturb"}
