"""`--set` changes one key of a recipe, and an error in it names the option, not the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graftkit import Recipe, load_recipe
from graftkit.errors import RecipeError

MAPPING = {"model": "m", "data": {"train": "a.jsonl"}, "adapter": "lora", "quantizer": "nf4"}


def changed(*assignments: str, **sections: Any) -> Recipe:
    return load_recipe({**MAPPING, **sections}, assignments).recipe


def test_a_value_is_read_as_yaml_writes_it() -> None:
    recipe = changed("training.learning_rate=2e-4", "training.epochs=3", "export=[peft, {use: merged, dtype: float16}]")
    assert (recipe.training.learning_rate, recipe.training.epochs) == (0.0002, 3)
    assert [export.use for export in recipe.export] == ["peft", "merged"]
    assert recipe.export[1].options == {"dtype": "float16"}


def test_a_section_in_its_short_form_may_be_refined() -> None:
    recipe = changed("adapter.rank=8", "quantizer.double_quant=true", "model.use=gguf")
    assert (recipe.adapter.use, recipe.adapter.options) == ("lora", {"rank": 8})
    assert recipe.quantizer is not None
    assert (recipe.quantizer.use, recipe.quantizer.options) == ("nf4", {"double_quant": True})
    assert recipe.model.use == "gguf"


def test_a_section_that_is_not_there_yet_is_made() -> None:
    assert changed("evaluation.exact_match=5").evaluation.exact_match == 5


def test_a_later_option_wins_and_null_takes_a_section_away() -> None:
    assert changed("training.epochs=3", "training.epochs=5").training.epochs == 5
    assert changed("quantizer=null").quantizer is None
    assert changed("quantizer=").quantizer is None


def test_spaces_around_the_key_and_equal_signs_in_the_value_do_no_harm() -> None:
    assert changed(" training.epochs = 3").training.epochs == 3
    assert changed("adapter.targets=[a=b]").adapter.targets == ["a=b"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epochs", "the form is KEY=VALUE"),
        ("=3", "the form is KEY=VALUE"),
        ("training.epochs=[", "'[' is no value"),
        ("training.epochs=*x", "'*x' is no value: aliases are not read"),
        ("training.epochs=!!int x", "'!!int x' is no value: tags are not read"),
        ('training.device="\\UFFFFFFFF"', "is no value"),
        ("training.epochs=" + "9" * 5000, "a number too long to read"),
        ("training.epochs=" + "[" * 5000, "is no value"),
        ("training.epochs=" + "[" * 30 + "]" * 30, "nested too deeply"),
        ("export.0.name=x", "'export' is no section"),
        ("data.train.x=1", "'train' is no section"),
        ("training.epochs=many", "training.epochs: must be an integer, not 'many'"),
        ("training.epoch=3", "unknown key 'training.epoch'\nDid you mean 'epochs'?"),
        ("trainin.epochs=3", "unknown key 'trainin'\nDid you mean 'training'?"),
    ],
)
def test_an_option_that_means_nothing_is_quoted(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        changed(assignment, export=["peft"])
    assert message in str(caught.value)
    assert caught.value.where.startswith(f"--set {assignment}"[:60])


def test_each_error_has_its_own_origin(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: {train: a}\ntraining:\n  epochs: x\n  seed: 1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["training.seed=y"])
    assert f"{path}:4: training.epochs" in caught.value.message
    assert "--set training.seed=y: training.seed" in caught.value.message


def test_a_mapping_that_somebody_hands_over_stays_as_it_is() -> None:
    mapping = {"model": {"path": "m"}, "data": {"train": ["a.jsonl"]}, "training": {"epochs": 1}}
    load_recipe(mapping, ["training.epochs=3", "data.holdout=0", "model.use=gguf"])
    assert mapping == {"model": {"path": "m"}, "data": {"train": ["a.jsonl"]}, "training": {"epochs": 1}}


def test_a_recipe_may_be_handed_over_as_an_object() -> None:
    recipe = changed("adapter.rank=8")
    again = load_recipe(recipe, ["training.epochs=4"]).recipe
    assert (again.adapter.options, again.training.epochs, again.data) == ({"rank": 8}, 4, recipe.data)
    assert recipe.training.epochs is None
