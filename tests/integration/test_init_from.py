"""`toolkit init --from`: the recipe that it writes is one that `toolkit plan` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.errors import RecipeError


@pytest.fixture
def axolotl(tiny_model: Path, chat_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Axolotl's settings with local paths, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(tiny_model)
    (tmp_path / "train.jsonl").write_bytes(chat_records.read_bytes())
    return {
        "base_model": "./model",
        "adapter": "lora",
        "lora_r": 4,
        "lora_target_linear": True,
        "datasets": [{"path": "train.jsonl", "type": "chat_template"}],
        "sequence_len": 64,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "max_steps": 30,
        "learning_rate": 2e-4,
        "val_set_size": 0.1,
        "chat_template": "chatml",
        "logging_steps": 1,
    }


def toolkit(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments)


def test_its_recipe_is_planned_and_says_what_became_of_each_key(axolotl: dict[str, Any], tmp_path: Path) -> None:
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl))
    Path("recipes").mkdir()
    done = toolkit("init", "recipes/mine.yaml", "--from", "axolotl.yml")
    assert done.exit_code == 0, done.output
    text = Path("recipes/mine.yaml").read_text()
    for line in done.output.splitlines()[1:]:
        assert f"# {line}\n" in text
    assert (
        "not converted: chat_template: the model's own" in text
        and "without effect on what is learnt: logging_steps" in text
    )
    recipe = yaml.safe_load(text)
    assert recipe["model"] == "../model"  # from the recipe's own folder
    assert recipe["data"]["train"] == {"path": "../train.jsonl", "format": "messages"}
    assert recipe["training"]["tokens_per_step"] > 16 * 8  # 16 examples, whose lengths were looked at
    planned = toolkit("plan", "recipes/mine.yaml")
    assert planned.exit_code == 0, planned.output


def test_what_makes_no_recipe_is_refused_and_nothing_is_written(axolotl: dict[str, Any]) -> None:
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | {"learning_rate": -1}))
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml")
    assert isinstance(done.exception, RecipeError) and not Path("mine.yaml").exists()
    assert "axolotl.yml" in str(done.exception) and "makes no recipe: training.learning_rate" in str(done.exception)
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml", "--model", "other")
    assert done.exit_code == 2 and "--model is what the file of --from says" in done.output


def test_a_strangers_key_writes_no_line_of_its_own(axolotl: dict[str, Any]) -> None:
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | {"x\nexport: [mine]\x1b]0;": 1}))
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml")
    assert done.exit_code == 0 and "\x1b" not in done.output
    assert "not converted: x\\nexport: [mine]\\x1b]0;: a recipe has no key for it" in Path("mine.yaml").read_text()
    assert yaml.safe_load(Path("mine.yaml").read_text())["export"] == ["peft"]


def test_a_path_from_the_root_stays_one(axolotl: dict[str, Any], tmp_path: Path) -> None:
    records = str(tmp_path / "train.jsonl")
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | {"datasets": [{"path": records, "type": "chat_template"}]}))
    Path("recipes").mkdir()
    done = toolkit("init", "recipes/mine.yaml", "--from", "axolotl.yml")
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(Path("recipes/mine.yaml").read_text())["data"]["train"]["path"] == records
