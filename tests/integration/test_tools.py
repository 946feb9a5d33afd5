"""Records with functions and calls: from `init` to an answer that was asked for as in training."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.generate import command as generate
from graftkit.cli.init import command as init
from graftkit.errors import FolderError, StorageError
from graftkit.flow.answering.reload import ReloadedModel, reload
from graftkit.store.files import write_new_text

TOOL = {"type": "function", "function": {"name": "open_ticket", "parameters": {"type": "object", "properties": {}}}}


def record(number: int) -> dict[str, object]:
    call = {"type": "function", "function": {"name": "open_ticket", "arguments": json.dumps({"area": number})}}
    turns = [
        {"role": "user", "content": f"printer {number}"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    return {"messages": turns, "tools": [TOOL]}


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("records.jsonl").write_text("".join(json.dumps(record(number)) + "\n" for number in range(30)))
    done = CliRunner().invoke(init, ["mine.yaml", "--model", str(tiny_model), "--train", "records.jsonl"])
    assert done.exit_code == 0, done.output
    assert "wrote chatml.jinja: the model's own chat template leaves out: tool calls, tools" in done.output
    return tmp_path / "mine.yaml"


def test_init_gives_a_template_where_the_models_own_leaves_out_what_is_to_be_learnt(recipe: Path) -> None:
    written = yaml.safe_load(recipe.read_text())
    assert written["data"]["chat_template"] == "chatml.jinja" and "dropped" not in written["data"]
    planned = graftkit.plan(recipe)
    assert planned.samples.train.counts() == {"chat": 24}
    again = CliRunner().invoke(init, ["two.yaml", "--model", written["model"], "--train", "records.jsonl"])
    assert again.exit_code == 0, again.output
    Path("chatml.jinja").write_text("mine")
    refused = CliRunner().invoke(init, ["three.yaml", "--model", written["model"], "--train", "records.jsonl"])
    assert refused.exit_code != 0 and not Path("three.yaml").exists() and Path("chatml.jinja").read_text() == "mine"


@pytest.mark.parametrize("odd", ["pipe", "folder", "/dev/zero", "a link that leads nowhere", "one letter more"])
def test_init_leaves_what_lies_in_its_templates_place(recipe: Path, odd: str) -> None:
    """And neither waits for it nor reads it to no end."""
    model, place = yaml.safe_load(recipe.read_text())["model"], recipe.parent / "chatml.jinja"
    own = place.read_text()
    place.unlink()
    if odd == "pipe":
        os.mkfifo(place)
    elif odd == "folder":
        place.mkdir()
    elif odd == "one letter more":
        place.write_text(own + "x")
    else:
        place.symlink_to(odd if odd.startswith("/") else "nowhere")
    before = place.lstat()
    signal.alarm(60)
    try:
        done = CliRunner().invoke(init, ["two.yaml", "--model", model, "--train", "records.jsonl"])
    finally:
        signal.alarm(0)
    assert isinstance(done.exception, FolderError) and "chatml.jinja" in str(done.exception)
    assert place.lstat().st_ino == before.st_ino and not Path("two.yaml").exists() and not Path("nowhere").exists()


def test_init_takes_its_template_back_where_the_recipe_can_not_be_written(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not one that was there before."""
    model, place = yaml.safe_load(recipe.read_text())["model"], recipe.parent / "chatml.jinja"

    def full(path: Path, text: str) -> None:
        if path.suffix == ".yaml":
            raise StorageError("can't be written: No space left on device", where=str(path))
        write_new_text(path, text)

    monkeypatch.setattr("graftkit.flow.first_recipe.write_new_text", full)
    for there_before in (True, False):
        done = CliRunner().invoke(init, ["two.yaml", "--model", model, "--train", "records.jsonl"])
        assert isinstance(done.exception, StorageError) and place.exists() == there_before
        place.unlink(missing_ok=True)


def test_init_follows_no_link_that_leads_nowhere(recipe: Path) -> None:
    model = yaml.safe_load(recipe.read_text())["model"]
    Path("link.yaml").symlink_to("elsewhere.yaml")
    done = CliRunner().invoke(init, ["link.yaml", "--model", model, "--train", "records.jsonl"])
    assert isinstance(done.exception, FolderError) and Path("link.yaml").is_symlink()


def test_plain_conversations_keep_the_models_own_template(
    tiny_model: Path, chat_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(init, ["mine.yaml", "--model", str(tiny_model), "--train", str(chat_records)])
    assert done.exit_code == 0 and not Path("chatml.jinja").exists(), done.output


def asked(model: ReloadedModel, **how: list[dict[str, object]]) -> str:
    return model.tokenizer.decode(model.prompt("printer 3", **how))  # type: ignore[arg-type]


def test_a_run_is_asked_with_the_functions_of_its_training(recipe: Path) -> None:
    changes = ["training.steps=2", "training.device=cpu", "training.tokens_per_step=2048", "data.max_length=512"]
    result = graftkit.run(recipe, overrides=changes, out=recipe.parent / "run")
    assert result.manifest["data"]["tools"] == [TOOL]
    for source in (result.folder, result.exports["peft"], result.exports["merged"]):
        model = reload(str(source))
        assert json.dumps(TOOL) in asked(model) and json.dumps(TOOL) not in asked(model, tools=[])
        other = {**TOOL, "function": {"name": "other"}}
        assert json.dumps(other) in asked(model, tools=[other])
    Path("none.json").write_text("[]")
    tried = [str(result.folder), "printer 3", "--max-new-tokens", "1", "--tools"]
    assert CliRunner().invoke(generate, [*tried, "none.json"]).exit_code == 0
    Path("odd.json").write_text('{"name": "open_ticket"}')
    refused = CliRunner().invoke(generate, [*tried, "odd.json"])
    assert refused.exit_code != 0 and "tools are a JSON list of objects" in str(refused.exception)
