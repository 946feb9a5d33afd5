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
    assert changed("evaluation.answers=5").evaluation.answers == 5


def test_a_key_of_the_default_adapter_may_be_set_where_the_recipe_names_none() -> None:
    recipe = load_recipe({"model": "m", "data": {"train": "a"}}, ["adapter.rank=3"]).recipe
    assert (recipe.adapter.use, recipe.adapter.options) == ("lora", {"rank": 3})


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
        ("training.epochs=many", "training.epochs: must be a number, not 'many'"),
        ("data.epochs=3", "unknown key 'data.epochs'\nDid you mean 'training.epochs'?"),
        ("training.patience=3", "unknown key 'training.patience'\nDid you mean 'evaluation.patience'?"),
        ("data.split=x", "unknown key 'data.split'\nDid you mean 'data.train.split' or 'data.holdout.split'?"),
        ("training.quantizer=nf4", "unknown key 'training.quantizer'\nDid you mean 'quantizer'?"),
        ("training.path=x", "unknown key 'training.path'\nKnown: "),
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


def noticed(recipe: dict[str, Any], *assignments: str) -> tuple[Recipe, list[str]]:
    loaded = load_recipe({**MAPPING, **recipe}, assignments)
    return loaded.recipe, loaded.document.notices


def test_steps_that_are_set_replace_the_files_epochs_and_the_other_way_round() -> None:
    recipe, told = noticed({"training": {"epochs": 3, "seed": 1}}, "training.steps=16")
    assert (recipe.training.steps, recipe.training.epochs, recipe.training.seed) == (16, None, 1)
    assert told == ["--set training.steps=16 replaces training.epochs 3 of recipe"]
    recipe, told = noticed({"training": {"steps": 16}}, "training.epochs=2")
    assert (recipe.training.steps, recipe.training.epochs) == (None, 2) and len(told) == 1


def test_what_is_replaced_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: {train: a}\ntraining:\n  epochs: 3\n")
    loaded = load_recipe(path, ["training.steps=16"])
    assert loaded.document.notices == [f"--set training.steps=16 replaces training.epochs 3 of {path}:4"]


def test_a_tokenizer_that_is_set_replaces_the_files() -> None:
    recipe, told = noticed({"tokenizer": {"extend": {"tokens": 5}}}, "tokenizer.replace=./other")
    assert recipe.tokenizer is not None and recipe.tokenizer.extend is None and recipe.tokenizer.replace is not None
    assert told == ["--set tokenizer.replace=./other replaces tokenizer.extend of recipe"]
    recipe, told = noticed({"tokenizer": {"replace": "./other"}}, "tokenizer.extend.tokens=7")
    assert recipe.tokenizer is not None and recipe.tokenizer.extend is not None and len(told) == 1


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["training.steps=4", "training.steps=40"], ["--set training.steps=40 replaces --set training.steps=4"]),
        (["training.steps=4", "training.steps=4"], []),
        (["export=peft", "export=merged"], ["--set export=merged replaces --set export=peft"]),
        (["adapter.rank=8", "adapter=qlora"], ["adapter.alpha of recipe", "replaces --set adapter.rank=8"]),
        (["adapter=qlora"], ["--set adapter=qlora replaces the whole section, also adapter.rank, adapter.alpha of"]),
        (["adapter={use: qlora, rank: 8, alpha: 8}", "adapter.rank=4"], []),
        (["adapter.use=qlora", "adapter.rank=8"], []),
        (["tokenizer.extend.tokens=3", "tokenizer.embedding_init=random"], []),
        (["quantizer=nf4", "quantizer.double_quant=true"], []),
    ],
)
def test_what_is_set_and_lost_is_told(assignments: list[str], expected: list[str]) -> None:
    """A rank that nobody took away, or the first of two exports, would be missed too late."""
    _, told = noticed({"adapter": {"use": "lora", "rank": 64, "alpha": 32}}, *assignments)
    assert len(told) == len(expected) and all(part in text for part, text in zip(expected, told, strict=True))


@pytest.mark.parametrize(
    ("assignment", "lost"),
    [
        ("data.train=b.jsonl", "all of data.train, also data.train.format, data.train.weight"),
        ("data.train={path: b.jsonl, format: {use: score}}", "all of data.train, also data.train.format.as_text, "),
        ("data={train: b.jsonl}", "the whole section, also data.train.format, data.train.weight"),
        ("tokenizer.extend={tokens: 7}", "all of tokenizer.extend, also tokenizer.extend.words"),
        ("tokenizer={extend: {tokens: 7}}", "the whole section, also tokenizer.extend.words"),
        ("data.train.path=b.jsonl", ""),
    ],
)
def test_keys_below_what_is_set_are_told_in_full(assignment: str, lost: str) -> None:
    train = {"path": "a.jsonl", "format": {"use": "score", "as_text": True}, "weight": 2}
    _, told = noticed({"data": {"train": train}, "tokenizer": {"extend": {"tokens": 5, "words": ["<a>"]}}}, assignment)
    assert len(told) == bool(lost) and all(f"--set {assignment} replaces {lost}" in text for text in told), told


@pytest.mark.parametrize(
    ("assignment", "lost"),
    [
        (
            "data.train=d.jsonl",
            "all of data.train, also data.train.0.weight, data.train.2.format, data.train.2.first of",
        ),
        (
            "data.train=[d, {path: e}, {path: f, first: 1}]",
            "all of data.train, also data.train.0.weight, data.train.2.f",
        ),
        ("data.train=[{path: d, weight: 1}, e, {path: f, first: 1, format: text}]", ""),
        ("data.holdout=0.1", "all of data.holdout, also data.holdout.0.split of"),
        ("export=peft", ""),
    ],
)
def test_keys_of_a_lists_entries_are_told_in_full(assignment: str, lost: str) -> None:
    train = [{"path": "a", "weight": 2}, "b", {"path": "c", "format": "text", "first": 9}]
    data = {"train": train, "holdout": [{"path": "hub:a/b", "split": "test"}]}
    _, told = noticed({"data": data, "export": [{"use": "merged", "dtype": "float16"}]}, assignment)
    assert len(told) == bool(lost) and all(f"--set {assignment} replaces {lost}" in text for text in told), told


def test_two_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RecipeError, match="either epochs or steps"):
        changed("training.steps=16", "training.epochs=2")
    with pytest.raises(RecipeError, match=r"data\.max_length \(600\) .* training\.tokens_per_step \(512\)"):
        changed("data.max_length=600", "training.tokens_per_step=512")


def test_a_null_replaces_nothing() -> None:
    recipe, told = noticed({"training": {"epochs": 3}}, "training.steps=null")
    assert recipe.training.epochs == 3 and told == []


def test_tokens_of_a_step_follow_a_length_that_is_set() -> None:
    data, training = {"train": "a.jsonl", "max_length": 128}, {"tokens_per_step": 512}
    recipe, told = noticed({"data": data, "training": training}, "data.max_length=2048")
    assert (recipe.data.max_length, recipe.training.tokens_per_step) == (2048, 2048)
    assert told[0].startswith("--set data.max_length=2048 raises training.tokens_per_step from 512 to 2048")
    with pytest.raises(RecipeError, match=r"data\.max_length \(128\) .* training\.tokens_per_step \(64\)"):
        noticed({"data": data, "training": training}, "training.tokens_per_step=64")
