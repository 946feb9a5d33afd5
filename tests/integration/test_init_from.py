"""`toolkit init --from`: the recipe that it writes is one that `toolkit plan` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.errors import RecipeError
from graftkit.flow.records.training_numbers import estimate_steps


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


@pytest.mark.parametrize("here", [True, False])
def test_what_is_done_so_often_an_epoch_is_counted_in_steps(axolotl: dict[str, Any], here: bool) -> None:
    """Where the records are, as many as the plan then says; else it is named, with all that needs it."""
    said = {"evals_per_epoch": 2, "saves_per_epoch": 1, "early_stopping_patience": 3, "max_steps": None}
    if not here:
        Path("train.jsonl").unlink()
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | said | {"num_epochs": 3}))
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml")
    assert done.exit_code == 0, done.output
    recipe = yaml.safe_load(Path("mine.yaml").read_text())
    if not here:
        assert "evaluation" not in recipe and "checkpoint_every" not in recipe["training"]
        assert "say evaluation: {every: STEPS, patience: 3}" in done.output
        assert "not converted: saves_per_epoch: how many steps" in done.output
        return
    plan = graftkit.plan("mine.yaml")
    assert plan.corpus is not None
    an_epoch = estimate_steps(plan.bound.recipe, plan.corpus).an_epoch
    assert recipe["training"]["checkpoint_every"] == pytest.approx(an_epoch, rel=0.2, abs=1)
    assert recipe["evaluation"] == {"every": pytest.approx(an_epoch / 2, rel=0.2, abs=1), "patience": 3}
    assert f"evaluation.every: {recipe['evaluation']['every']} is evals_per_epoch: 2, since an epoch has" in done.output


def test_what_makes_no_recipe_is_refused_and_nothing_is_written(axolotl: dict[str, Any]) -> None:
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | {"learning_rate": -1}))
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml")
    assert isinstance(done.exception, RecipeError) and not Path("mine.yaml").exists()
    assert "axolotl.yml" in str(done.exception) and "makes no recipe: training.learning_rate" in str(done.exception)
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml", "--model", "other")
    assert done.exit_code == 2 and "--model is what the file of --from says" in done.output


@pytest.mark.parametrize(
    ("said", "message"),
    [({"lora_r": "eight"}, "rank"), ({"lora_r": True}, "rank"), ({"sequence_len": "long"}, "sequence_len")],
)
def test_a_value_that_no_recipe_takes_is_refused_by_its_file(axolotl: dict[str, Any], said: Any, message: str) -> None:
    Path("axolotl.yml").write_text(yaml.safe_dump(axolotl | said))
    done = toolkit("init", "mine.yaml", "--from", "axolotl.yml")
    assert isinstance(done.exception, RecipeError) and message in str(done.exception)
    assert done.exception.where == "axolotl.yml" and not Path("mine.yaml").exists()


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
