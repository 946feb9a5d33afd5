"""What the documents say is so."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from documents import blocks
from gguf_models import write_model
from graftkit.cli.main import cli
from graftkit.host.host import PluginHost
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]


def yaml_blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_shows_the_quickstart_as_it_is() -> None:
    (shown,) = yaml_blocks("README.md")
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "fixtures/quickstart.yaml").read_text())


def test_the_picture_of_the_house_shows_what_is_there() -> None:
    picture = next(block.text for block in blocks("docs/architecture.md") if block.text.startswith("core/graftkit/"))
    core, plugins = picture.split("plugins/\n")
    for folder, part in (("core/graftkit", core), ("plugins", plugins)):
        shown = re.findall(r"^ {4}([a-z_]+(?:/|\.py))", part, re.MULTILINE)
        assert len(shown) > 3 and [name for name in shown if not (ROOT / folder / name).exists()] == []


def test_files_that_the_architecture_names_are_there() -> None:
    """By the end of their path, as the page names them below a folder that it has just named."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = {f"/{name}" for name in re.findall(r"`([\w./-]+\.py)`", text)}
    there = [
        path.as_posix() for folder in ("core", "plugins", "docs", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(named) > 100
    assert sorted(name for name in named if not any(path.endswith(name) for path in there)) == []


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(cli, ["--help"])
    names = re.findall(r"^  ([a-z]+)  ", result.output.partition("Commands:")[2], re.MULTILINE)
    assert len(names) >= 8
    assert [name for name in names if f"{name}" not in text] == []


def test_every_dependency_is_accounted_for() -> None:
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(
        r'^    "([a-z_]+)[>=]', metadata.partition("dependencies = [")[2].partition("]")[0], re.MULTILINE
    )
    assert len(listed) >= 10 and all(f"| {name} |" in text for name in listed)


def test_the_starter_recipe_is_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "mine.yaml")])
    assert result.exit_code == 0
    bind(load_recipe(tmp_path / "mine.yaml"), PluginHost())


@pytest.mark.parametrize(("file", "quantizer"), [("", "nf4"), ("f32", "nf4"), ("q8_0", "stored")])
def test_the_starter_recipe_keeps_weights_that_are_quantized_already(
    tiny_model: Path, tmp_path: Path, file: str, quantizer: str
) -> None:
    model = write_model(tmp_path / "model.gguf", tiny_model, file) if file else tiny_model
    (tmp_path / "records.json").write_text(json.dumps([{"question": "one?", "answer": "two"}] * 40))
    args = ["init", str(tmp_path / "mine.yaml"), "--model", str(model), "--train", str(tmp_path / "records.json")]
    assert CliRunner().invoke(cli, args).exit_code == 0
    assert load_recipe(tmp_path / "mine.yaml").recipe.quantizer.use == quantizer


def test_a_starter_recipe_in_another_folder_names_what_was_looked_at(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "records.json").write_text(json.dumps([{"question": "one?", "answer": "two"}] * 40))
    (tmp_path / "recipes" / "model").mkdir(parents=True)  # another one
    monkeypatch.chdir(tmp_path)
    args = ["init", "recipes/mine.yaml", "--model", "model", "--train", "rec*.json"]
    assert CliRunner().invoke(cli, args).exit_code == 0
    recipe = load_recipe(tmp_path / "recipes" / "mine.yaml").recipe
    assert Path(recipe.model.path).samefile(tiny_model)
    assert os.path.normpath(recipe.data.train[0].path) == str(tmp_path / "rec*.json")
    assert CliRunner().invoke(cli, ["init", "recipes/two.yaml", "--model", "./later"]).exit_code == 0
    assert load_recipe("recipes/two.yaml").recipe.model.path == str(tmp_path / "recipes" / "later")


@pytest.mark.parametrize("shape", ["question-answer", "alpaca", "sharegpt", "messages"])
def test_the_starter_recipe_fits_the_records_that_are_there(tiny_model: Path, tmp_path: Path, shape: str) -> None:
    records = {
        "question-answer": {"question": "one?", "answer": "two", "id": 3},
        "alpaca": {"instruction": "one?", "input": "", "output": "two"},
        "sharegpt": {"conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "two"}], "id": 3},
        "messages": {
            "messages": [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    }
    (tmp_path / "records.json").write_text(json.dumps([records[shape]] * 40))
    args = ["init", str(tmp_path / "mine.yaml"), "--model", str(tiny_model), "--train", str(tmp_path / "records.json")]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0 and f"as {shape}" in result.output
    recipe = load_recipe(tmp_path / "mine.yaml").recipe
    [files] = recipe.data.train
    assert files.format is not None and files.format.use == shape
    assert files.unused == (["id"] if "id" in records[shape] else "report")
    own = recipe.data.chat_template is not None  # the tiny model's template knows no tools
    assert own == ("leaves out: tools" in result.output) == (shape == "messages") and recipe.data.dropped == "refuse"
    assert recipe.data.max_length is not None and recipe.data.max_length <= (512 if own else 128)
    assert recipe.training.epochs is not None and recipe.training.epochs >= 3
