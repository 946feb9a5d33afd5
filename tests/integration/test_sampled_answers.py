"""Runs that learn from answers which the model samples: what they learn, keep and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.main import cli as toolkit
from graftkit.errors import DataError, RecipeError
from graftkit.flow.events import Event, Notice, StepFinished
from graftkit.flow.training import rewards
from graftkit.interfaces.objective import SAMPLED_METRICS
from made_records import written
from stopped_runs import run_until

VOWELS = {"use": "regex", "pattern": "[aeiou]"}


@pytest.fixture
def sampling(make_recipe: Any) -> Any:
    """Makes a recipe whose answers are worth most with a vowel."""

    def make(steps: int = 2, **sections: Any) -> dict[str, Any]:
        sections["objective"] = {"use": "grpo", "group_size": 4, "max_new_tokens": 6, **sections.pop("objective", {})}
        sections["evaluation"] = {"metrics": VOWELS, **sections.pop("evaluation", {})}
        found: dict[str, Any] = make_recipe(**sections)
        found["training"] = {**found["training"], "steps": steps, "learning_rate": 2e-2}
        return found

    return make


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_what_is_rewarded_becomes_likelier_and_a_stopped_run_goes_on_to_the_same(
    sampling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sampling(8, export=["peft", "merged"], evaluation={"every": 4})
    result = graftkit.run(recipe, out=tmp_path / "whole")
    lines = lines_of(tmp_path / "whole")
    steps = [line for line in lines if "loss" in line]
    assert result.before is not None and result.after is not None
    assert result.after.metrics["reward"] > result.before.metrics["reward"] + 0.2
    assert result.after.holdout_loss == -result.after.metrics["reward"] and result.after.bits_per_byte is None
    assert [line["step"] for line in lines if "holdout_loss" in line] == [4, 8]
    assert all(-line["loss"] == line["metrics"]["reward"] for line in steps)
    assert all(0 < line["loss_tokens"] < line["tokens"] for line in steps)
    assert steps[-1]["metrics"].keys() == {*SAMPLED_METRICS}
    [training] = [stage for stage in result.manifest["stages"] if stage["name"] == "training"]
    assert training["loss_tokens"] == sum(line["loss_tokens"] for line in steps)
    assert training["tokens"] == sum(line["tokens"] for line in steps)
    assert {export["proof"]["status"] for export in result.manifest["exports"].values()} == {"proved"}
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "Holdout records with the least reward" in page and "<p>reward " in page and "<p>loss " not in page
    assert "in the loss" not in page + (result.exports["merged"] / "README.md").read_text(), "no token of a record is"
    assert not any("prompts leave" in notice for notice in result.manifest["notices"])
    run_until(3, recipe, tmp_path / "stopped")
    monkeypatch.setattr(rewards, "_KEPT_TOKENS", 0)  # a corpus that is not kept in memory
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    adapter = "adapter/adapter.safetensors"
    assert (tmp_path / "stopped" / adapter).read_bytes() == (tmp_path / "whole" / adapter).read_bytes()
    assert lines_of(tmp_path / "stopped") == lines
    [measured] = graftkit.evaluate(tmp_path / "whole")
    assert measured.to_json()["holdout_loss"] > 0, "a likelihood: what rewards are of is sampled in training alone"


def test_metrics_are_summed_up_with_their_weights(sampling: Any, tmp_path: Path) -> None:
    metrics = [VOWELS, {"use": "contains", "text": "a", "name": "a"}, "exact-match"]
    recipe = sampling(evaluation={"metrics": metrics}, objective={"rewards": {"regex": 1, "a": -0.5}}, export=[])
    graftkit.run(recipe, out=tmp_path / "run")
    for line in lines_of(tmp_path / "run"):
        told = line["metrics"]
        assert told["reward"] == pytest.approx(told["regex"] - 0.5 * told["a"]) and "exact-match" not in told


def test_a_run_whose_answers_are_all_worth_the_same_says_so(sampling: Any, tmp_path: Path) -> None:
    told: list[str] = []
    worthless = {"metrics": {"use": "contains", "text": "never said"}}
    recipe = sampling(evaluation=worthless, objective={"max_new_tokens": 60}, export=[])
    graftkit.run(
        recipe,
        out=tmp_path / "run",
        on_event=lambda event: told.append(event.message) if isinstance(event, Notice) else None,
    )
    assert any(
        "no step had a gradient: nothing was learnt. All answers to a prompt were worth" in text for text in told
    )
    assert any("prompts leave an answer fewer tokens than objective.max_new_tokens (60)" in text for text in told)


def test_what_can_not_be_sampled_is_refused_before_work_is_done(sampling: Any, tmp_path: Path) -> None:
    for fields, message in (
        ({"rewards": {"regexp": 1}}, r"evaluation.metrics has no 'regexp'"),
        ({"rewards": {"regex": 0}}, "all weights are 0"),
        ({"max_new_tokens": 64}, "no room for a prompt"),
    ):
        with pytest.raises(RecipeError, match=message):
            graftkit.plan(sampling(objective=fields))
    for name in SAMPLED_METRICS:
        with pytest.raises(RecipeError, match=f"one is called '{name}', as what the objective grpo reports itself"):
            graftkit.plan(sampling(evaluation={"metrics": ["exact-match", {**VOWELS, "name": name}]}))
    texts = written(tmp_path / "texts.jsonl", [{"text": "only this"}] * 9)
    with pytest.raises(DataError, match="grpo learns from prompts that are answered"):
        graftkit.plan(sampling(data={"train": str(texts), "holdout": 0.1}))
    empty = written(tmp_path / "empty.jsonl", [{"prompt": "", "completion": "a"}] * 9)
    with pytest.raises(DataError, match="the prompt is empty") as refused:
        graftkit.plan(sampling(data={"train": str(empty), "holdout": 0.1}))
    assert "empty.jsonl:1" in str(refused.value)


def test_a_record_whose_prompt_has_no_token_is_named(sampling: Any, tmp_path: Path) -> None:
    """Only its tokens show that: a template may begin an answer after nothing."""
    said = [{"messages": [{"role": "assistant", "content": f"only {n}"}]} for n in range(9)]
    (tmp_path / "bare.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    records = str(written(tmp_path / "records.jsonl", said))
    data = {"train": records, "holdout": 0.0, "chat_template": str(tmp_path / "bare.jinja")}
    with pytest.raises(DataError, match="no token stands before the answer") as refused:
        graftkit.run(sampling(1, data=data, export=[]), out=tmp_path / "run")
    assert "records.jsonl:" in str(refused.value)


def test_preview_says_that_answers_are_compared_and_not_learnt(sampling: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "recipe.yaml", [sampling()])
    shown = CliRunner().invoke(toolkit, ["preview", str(path), "--records", "1"])
    assert shown.exit_code == 0, shown.output
    assert "nothing of this is learnt" in shown.output and "are compared with; lengths" in shown.output


def test_a_run_whose_records_change_goes_on_when_they_are_back(
    sampling: Any, chat_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts are read from the records in each step, where these are too many to keep."""
    monkeypatch.setattr(rewards, "_KEPT_TOKENS", 0)
    recipe, before = sampling(4, export=[]), chat_records.read_bytes()

    def edit(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 2:
            chat_records.write_text("")

    with pytest.raises(DataError, match="has changed since .*checked\n.*the old records back, and go on with --resume"):
        graftkit.run(recipe, out=tmp_path / "run", on_event=edit)
    chat_records.write_bytes(before)
    graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3, 4]
