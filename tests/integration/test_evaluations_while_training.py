"""Evaluations while a model is trained: they change nothing, choose a step, end the training, and survive stops."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import Cancelled, RecipeError, StorageError
from graftkit.flow.events import Event, HoldoutMeasured, StageStarted, StepFinished
from graftkit.flow.reporting.read_run import read_run
from graftkit.store.file_hashes import sha256_of
from graftkit.training.checkpoint import read_checkpoint
from graftkit.training.loop import Trainer
from safetensors.torch import load_file
from stopped_runs import run_until

ADAPTER = "adapter/adapter.safetensors"


@pytest.fixture
def recipe(make_recipe: Any) -> dict[str, Any]:
    training = {"steps": 8, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu"}
    found: dict[str, Any] = make_recipe(training=training, adapter={"use": "lora", "rank": 4, "dropout": 0.2})
    return found


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Replaces the holdout loss after a step, so that which is best, and whether to stop, is known beforehand."""
    losses = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.6, 10: 1.0, 12: 1.5}
    monkeypatch.setattr(Trainer, "holdout_loss", lambda self, store, poll: losses[self.step])
    return losses


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


def test_evaluations_are_lines_events_and_a_curve_and_change_nothing(recipe: dict[str, Any], tmp_path: Path) -> None:
    plain = graftkit.run(recipe, out=tmp_path / "plain")
    seen: list[Event] = []
    evaluated = {**recipe, "evaluation": {"every": 3, "sample": 4}}
    result = graftkit.run(evaluated, out=tmp_path / "run", on_event=seen.append)
    assert result.manifest["artifacts"][ADAPTER] == plain.manifest["artifacts"][ADAPTER]
    found = lines(result.folder)
    assert [line for line in found if "loss" in line] == lines(plain.folder)
    places = [(line["step"], "holdout_loss" in line) for line in found if line["step"] in (3, 6, 8)]
    assert places == [(3, False), (3, True), (6, False), (6, True), (8, False), (8, True)]
    measured = [event for event in seen if isinstance(event, HoldoutMeasured)]
    assert [(event.step, event.examples) for event in measured] == [(3, 4), (6, 4), (8, 4)]
    everything = {**recipe, "evaluation": {"every": 8, "sample": "all"}}
    whole = graftkit.run(everything, out=tmp_path / "all")
    [last] = [line["holdout_loss"] for line in lines(whole.folder) if "holdout_loss" in line]
    assert last == whole.metrics["after"]["holdout_loss"]
    assert ">holdout</text>" in (result.folder / "report.html").read_text()
    assert ">holdout</text>" not in (plain.folder / "report.html").read_text()
    exported = {"step": 8, "taken": 8, "planned": 8, "reason": "the last step", "stopped_early": ""}
    assert result.manifest["exported"] == exported and checkpoints(result.folder) == [8]


@pytest.mark.parametrize("stop", ["in an evaluation", "after a step", "between the last step and the best"])
def test_a_stopped_run_has_the_same_lines_and_the_same_best_step(
    recipe: dict[str, Any], tmp_path: Path, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["evaluation"] = {"every": 2, "exported": "best", "patience": 3}
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    cancel, calls = graftkit.CancelToken(), iter(range(100))
    loss = Trainer.holdout_loss

    def cancelled(self: Trainer, store: Any, poll: Any) -> float:
        if next(calls) == 1:
            cancel.cancel()
        return loss(self, store, poll)

    def on_event(event: Event) -> None:
        if stop == "after a step" and isinstance(event, StepFinished) and event.step.step == 5:
            cancel.cancel()
        if stop.startswith("between") and isinstance(event, StageStarted) and event.stage == "evaluation after":
            cancel.cancel()

    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        if stop == "in an evaluation":
            patch.setattr(Trainer, "holdout_loss", cancelled)
        graftkit.run(recipe, out=tmp_path / "run", on_event=on_event, cancel=cancel)
    again = graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert lines(again.folder) == lines(whole.folder)
    assert again.manifest["artifacts"][ADAPTER] == whole.manifest["artifacts"][ADAPTER]
    assert again.manifest["exported"] == whole.manifest["exported"] and again.metrics == whole.metrics


def test_an_evaluation_whose_line_is_damaged_is_named_and_counts_all_the_same(
    recipe: dict[str, Any], course: dict[int, float], tmp_path: Path
) -> None:
    """Its loss stands in the checkpoints that came after it, too."""
    recipe["evaluation"] = {"every": 2, "exported": "best", "patience": 2}
    recipe["training"]["steps"], recipe["training"]["checkpoint_every"] = 12, 1
    run_until(7, recipe, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    whole = graftkit.run(recipe, out=tmp_path / "whole", resume=True)
    path = tmp_path / "run" / "metrics.jsonl"
    written = path.read_bytes().splitlines(keepends=True)
    damaged = [b"\0" * (len(line) - 1) + b"\n" if b'"step": 4, "holdout_loss"' in line else line for line in written]
    assert damaged != written
    path.write_bytes(b"".join(damaged))
    again = graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert lines(again.folder) == lines(whole.folder)
    assert again.manifest["exported"] == whole.manifest["exported"] and again.manifest["exported"]["step"] == 4
    [told] = [notice for notice in again.manifest["notices"] if "damaged" in notice]
    assert "of the evaluation after step 4; the checkpoint has it" in told


def test_what_was_edited_after_a_kill_is_named_and_measured_anew_or_taken_from_the_checkpoint(
    recipe: dict[str, Any], course: dict[int, float], tmp_path: Path
) -> None:
    """Holdout losses choose the exported step; the answers before training are made at no later time."""
    recipe["evaluation"] = {"every": 2, "exported": "best", "answers": 2, "max_new_tokens": 2}
    recipe["training"]["checkpoint_every"] = 1
    run, killed = tmp_path / "run", tmp_path / "killed"

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 7:
            shutil.copytree(run, killed)

    whole = graftkit.run(recipe, out=run, on_event=on_event)
    answers = (run / "answers-before.json").read_text()
    (killed / "answers-before.json").write_text(answers.replace('"answer": "', '"answer": "edited'))
    path = killed / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 2, "holdout_loss": 3.0', '"step": 2, "holdout_loss": 0.5'))
    again = graftkit.run(recipe, out=killed, resume=True)
    assert lines(killed) == lines(run) and (killed / "answers-before.json").read_text() == answers
    assert again.manifest["exported"] == whole.manifest["exported"] and again.metrics == whole.metrics
    notices = again.manifest["notices"]
    assert "metrics.jsonl is not the file that the run wrote before it stopped" in notices
    told = "is not the file that the run wrote before: the model is evaluated anew"
    assert f"answers-before.json {told}" in notices and "kept" not in again.manifest
    # so is what a finished run says of itself, which gets another export
    (killed / "answers-after.json").unlink()
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1'))
    assert read_run(killed).damage == [
        f"{name} is not the file that the run wrote" for name in ("metrics.jsonl", "answers-after.json")
    ]
    more = graftkit.run({**recipe, "export": ["peft"]}, out=killed, resume=True)
    assert (killed / "answers-after.json").read_bytes() == (run / "answers-after.json").read_bytes()
    assert f"answers-after.json {told}" in more.manifest["notices"] and more.metrics == whole.metrics
    assert "metrics.jsonl is not the file that the run wrote before it stopped" in more.manifest["notices"]


def test_training_stops_early_and_the_best_step_is_exported(
    recipe: dict[str, Any], course: dict[int, float], tmp_path: Path
) -> None:
    recipe["training"]["steps"] = 12
    recipe["evaluation"] = {"every": 2, "patience": 2}
    result = graftkit.run(recipe, out=tmp_path / "run")
    exported = result.manifest["exported"]
    assert (exported["step"], exported["taken"], exported["planned"]) == (4, 8, 12)
    assert "2.0000" in exported["reason"] and "last 2 evaluations" in exported["stopped_early"]
    assert checkpoints(result.folder) == [4, 8]
    best = read_checkpoint(result.folder / "checkpoints/step-00000004")
    adapter = load_file(result.folder / ADAPTER)
    for name, tensor in adapter.items():
        [of_best] = [value for key, value in best.items() if key.startswith("parameter.") and key.endswith(name)]
        assert tensor.equal(of_best), name
    assert json.loads((result.folder / "adapter/adapter.json").read_text())["step"] == 4
    for name in ("checkpoints/step-00000004/state.safetensors", "checkpoints/step-00000008/state.safetensors"):
        assert result.manifest["artifacts"][name]["sha256"] == sha256_of(result.folder / name)
    # another export of it trains nothing and is of the same step
    more = graftkit.run({**recipe, "export": ["peft"]}, out=result.folder, resume=True)
    assert more.manifest["exported"] == exported and more.metrics == result.metrics
    assert more.manifest["artifacts"][ADAPTER] == result.manifest["artifacts"][ADAPTER]
    course[14] = 3.0
    # more steps are on another schedule, and it is told which the last step was on
    shutil.copytree(result.folder, tmp_path / "longer")
    longer = graftkit.run(recipe, out=tmp_path / "longer", resume=True, overrides=["training.steps=14"])
    [told] = [notice for notice in longer.manifest["notices"] if "schedule" in notice]
    [rate] = [line["learning_rate"] for line in lines(longer.folder) if line["step"] == 8 and "loss" in line]
    assert told.startswith("8 steps were taken on the cosine schedule of 12; the others are on that of 14")
    assert f"the rate, {rate:.1e} in the last step" in told
    # who waits longer goes on from the last step, on the schedule that the first steps were taken on, stopped or not
    run_until(9, recipe, result.folder, resume=True, overrides=["evaluation.patience=3"])
    on = graftkit.run(recipe, out=result.folder, resume=True, overrides=["evaluation.patience=3"])
    assert not any("schedule" in notice for notice in on.manifest["notices"])
    assert (on.manifest["exported"]["step"], on.manifest["exported"]["taken"]) == (10, 12)
    recipe["evaluation"] = {"every": 2, "patience": 3}
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    assert on.manifest["artifacts"][ADAPTER] == whole.manifest["artifacts"][ADAPTER]


def test_the_last_n_and_the_best_checkpoint_are_kept_and_a_lost_best_is_told(
    recipe: dict[str, Any], course: dict[int, float], tmp_path: Path
) -> None:
    recipe["training"] |= {"checkpoint_every": 1, "keep_checkpoints": 3}
    recipe["evaluation"] = {"every": 2, "exported": "best"}
    kept: list[list[int]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "evaluation after":
            kept.append(checkpoints(tmp_path / "run"))
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    result = graftkit.run(recipe, out=tmp_path / "run", on_event=on_event)
    assert kept == [[4, 6, 7, 8]] and result.manifest["exported"]["step"] == 4
    (tmp_path / "killed/checkpoints/step-00000004/state.safetensors").write_bytes(b"damaged")
    again = graftkit.run(recipe, out=tmp_path / "killed", resume=True)
    assert again.manifest["exported"]["step"] == 6
    assert any("the state after step 4, which was best, is gone" in notice for notice in again.manifest["notices"])


def test_a_disk_that_fills_up_at_the_best_steps_checkpoint_loses_nothing(
    recipe: dict[str, Any], course: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["evaluation"] = {"every": 2, "exported": "best"}
    whole = graftkit.run(recipe, out=tmp_path / "whole")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:

        def on_event(event: Event) -> None:
            if isinstance(event, HoldoutMeasured) and event.step == 4:
                patch.setattr("safetensors.torch.save_file", full)

        with pytest.raises(StorageError, match="No space left"):
            graftkit.run(recipe, out=tmp_path / "run", on_event=on_event)
    assert checkpoints(tmp_path / "run") == [2]
    again = graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert lines(again.folder) == lines(whole.folder)
    assert again.manifest["artifacts"][ADAPTER] == whole.manifest["artifacts"][ADAPTER]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"evaluation": {"patience": 2}}, "evaluation.patience goes by evaluations .* say every, too"),
        ({"evaluation": {"exported": "best"}}, "evaluation.exported goes by evaluations"),
        ({"evaluation": {"every": 2}, "holdout": 0}, "data.holdout is 0"),
    ],
)
def test_what_can_not_be_evaluated_is_refused(
    recipe: dict[str, Any], tmp_path: Path, sections: dict[str, Any], said: str
) -> None:
    data = {**recipe["data"], "holdout": sections.get("holdout", 0.1)}
    with pytest.raises(RecipeError, match=said):
        graftkit.run({**recipe, "data": data, "evaluation": sections["evaluation"]}, out=tmp_path / "run")
