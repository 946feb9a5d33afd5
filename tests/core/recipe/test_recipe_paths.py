"""A recipe's paths start at its own folder, those of `--set` where the command is typed; hub ids are no paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit import Recipe, load_recipe
from graftkit.errors import RecipeError
from graftkit.recipe.schema.data import DatasetSection


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The recipe's folder, and another one that the command is typed in."""
    recipes, here = tmp_path / "recipes", tmp_path / "here"
    recipes.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    return recipes, here


def loaded(folder: Path, text: str, *assignments: str) -> Recipe:
    (folder / "recipe.yaml").write_text(text)
    return load_recipe(folder / "recipe.yaml", assignments).recipe


def paths(files: float | list[DatasetSection]) -> list[str]:
    assert isinstance(files, list)
    return [entry.path for entry in files]


def test_paths_in_a_file_start_at_its_folder(folders: tuple[Path, Path]) -> None:
    recipes, _ = folders
    recipe = loaded(
        recipes, "model: ./m\ndata: {train: [a.jsonl, sub/b.txt], holdout: held.jsonl, chat_template: c.jinja}"
    )
    assert recipe.model.path == str(recipes / "m")
    assert paths(recipe.data.train) == [str(recipes / "a.jsonl"), str(recipes / "sub/b.txt")]
    assert paths(recipe.data.holdout) == [str(recipes / "held.jsonl")]
    assert recipe.data.chat_template is not None
    assert recipe.data.chat_template.path == str(recipes / "c.jinja")


def test_a_recipe_named_by_a_relative_path_anchors_the_same(folders: tuple[Path, Path]) -> None:
    recipes, _ = folders
    (recipes / "recipe.yaml").write_text("model: ./m\ndata: {train: a.jsonl}\n")
    found = Path(load_recipe("../recipes/recipe.yaml").recipe.data.train[0].path)
    assert found.is_absolute() and found.parent.resolve() == recipes


def test_paths_in_options_start_where_the_command_is_typed(folders: tuple[Path, Path]) -> None:
    recipes, here = folders
    text = "model: ./m\ndata: {train: a.jsonl, holdout: held.jsonl}\n"
    recipe = loaded(recipes, text, "data.train=b.jsonl", "model=./other")
    assert (paths(recipe.data.train), recipe.model.path) == ([str(here / "b.jsonl")], str(here / "other"))
    assert paths(recipe.data.holdout) == [str(recipes / "held.jsonl")]
    assert loaded(recipes, text, "model.path=./other").model.path == str(here / "other")
    assert paths(loaded(recipes, text, "data={train: b.jsonl}").data.train) == [str(here / "b.jsonl")]
    assert paths(loaded(recipes, text, "training.epochs=1").data.train) == [str(recipes / "a.jsonl")]


def test_paths_in_a_mapping_start_where_the_program_runs(folders: tuple[Path, Path]) -> None:
    _, here = folders
    recipe = load_recipe({"model": "./m", "data": {"train": "a.jsonl"}}).recipe
    assert (recipe.model.path, paths(recipe.data.train)) == (str(here / "m"), [str(here / "a.jsonl")])


def test_absolute_paths_and_the_home_folder_are_what_they_say(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes, here = folders
    monkeypatch.setenv("HOME", str(here))
    recipe = loaded(recipes, "model: /models/m\ndata: {train: ~/a.jsonl, holdout: 0}")
    assert (recipe.model.path, paths(recipe.data.train)) == ("/models/m", [str(here / "a.jsonl")])
    assert loaded(recipes, "model: ~nobody-is-called-so/m\ndata: {train: a}").model.path == str(
        recipes / "~nobody-is-called-so/m"
    )


@pytest.mark.parametrize("reference", ["org/name", "HuggingFaceTB/SmolLM2-135M", "hub:org/name", "package:a_b/c.gguf"])
def test_names_of_elsewhere_are_left_alone(folders: tuple[Path, Path], reference: str) -> None:
    recipes, _ = folders
    assert loaded(recipes, f"model: {reference}\ndata: {{train: a}}").model.path == reference
    assert loaded(recipes, f"model: {{path: {reference}, use: x}}\ndata: {{train: a}}").model.path == reference


@pytest.mark.parametrize("reference", ["m", "./org/name", "a/b/c", "org/name.gguf", "../m", "models/tiny", "here/new"])
def test_what_looks_like_a_path_or_exists_is_a_path(folders: tuple[Path, Path], reference: str) -> None:
    recipes, _ = folders
    (recipes / "models" / "tiny").mkdir(parents=True)
    (recipes / "here").mkdir()
    assert loaded(recipes, f"model: {reference}\ndata: {{train: a}}").model.path == str(recipes / reference)


def test_paths_of_files_with_what_they_are_start_where_other_paths_do(folders: tuple[Path, Path]) -> None:
    recipes, here = folders
    text = "model: ./m\ndata: {train: [{path: a.csv, format: alpaca}, b.jsonl], holdout: {path: c.csv}}"
    recipe = loaded(recipes, text)
    assert paths(recipe.data.train) == [str(recipes / "a.csv"), str(recipes / "b.jsonl")]
    assert paths(recipe.data.holdout) == [str(recipes / "c.csv")]
    assert paths(loaded(recipes, text, "data.train={path: d.csv}").data.train) == [str(here / "d.csv")]


@pytest.mark.parametrize(
    "text",
    [
        'model: ""\ndata: {train: a.jsonl}',
        'model: m\ndata: {train: ""}',
        'model: m\ndata: {train: [a.jsonl, {path: ""}]}',
        'model: m\ndata: {train: a.jsonl, chat_template: ""}',
        'model: m\ndata: {train: a.jsonl}\ntokenizer: {replace: ""}',
    ],
)
def test_an_empty_path_is_not_the_recipes_folder(folders: tuple[Path, Path], text: str) -> None:
    with pytest.raises(RecipeError, match="at least 1 character"):
        loaded(folders[0], text)


def test_a_name_that_no_file_can_have_is_judged_later(folders: tuple[Path, Path]) -> None:
    recipes, _ = folders
    long = "a" * 300
    recipe = loaded(recipes, f"model: {long}/{long}\ndata: {{train: {long}, chat_template: {long}}}")
    assert recipe.model.path == str(recipes / long / long)
