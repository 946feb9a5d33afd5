"""A recipe that says model and data alone trains enough, by numbers that the plan chooses and shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.cli.progress import PlainLines
from graftkit.errors import Cancelled, FolderError
from graftkit.flow.events import Chosen, Event, StepFinished
from graftkit.flow.records.estimate import estimate_corpus
from graftkit.flow.records.training_numbers import describe_chosen, estimate_steps
from graftkit.interfaces.objective_config import ObjectiveConfig


def chat_file(path: Path, count: int) -> str:
    lines = [
        {"messages": [{"role": "user", "content": f"number {n}?"}, {"role": "assistant", "content": f"it is {n}"}]}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.fixture
def minimal(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {"model": str(tiny_model), "data": {"train": chat_file(tmp_path / "rows.jsonl", 40)}}


@pytest.mark.parametrize("count", [4, 9, 12, 40, 200, 1000])
def test_what_is_chosen_trains_enough(tiny_model: Path, tmp_path: Path, count: int) -> None:
    rows = chat_file(tmp_path / "rows.jsonl", count)
    plan = graftkit.plan({"model": str(tiny_model), "data": {"train": rows, "holdout": 0}})
    assert plan.chosen.keys() == {"epochs", "tokens_per_step", "learning_rate"} and plan.corpus is not None
    steps = estimate_steps(plan.bound.recipe, plan.corpus)
    assert steps.steps >= 30 and steps.epochs >= 3
    if count >= 40:
        assert 6 <= steps.examples <= 9
    if count >= 200:
        assert plan.bound.recipe.training.epochs == 3
    assert plan.bound.resolved()["training"]["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("adapter", "rate"), [("lora", 1e-3), ("qlora", 1e-3), ("full", 1e-4)], ids=["lora", "qlora", "full"]
)
def test_the_rate_is_one_that_fits_the_adapter(minimal: dict[str, Any], adapter: str, rate: float) -> None:
    """Full fine-tuning takes a tenth of what LoRA takes; what a recipe says is left as it is."""
    planned = graftkit.plan({**minimal, "adapter": adapter})
    assert planned.chosen["learning_rate"] == planned.bound.recipe.training.learning_rate == pytest.approx(rate)
    said = graftkit.plan({**minimal, "adapter": adapter, "training": {"learning_rate": 3e-4}})
    assert "learning_rate" not in said.chosen and said.bound.recipe.training.learning_rate == 3e-4


def test_the_rate_fits_the_adapter_the_objective_and_the_optimizer(tiny_model: Path, tmp_path: Path) -> None:
    pair = {"prompt": "2 + 2?", "chosen": "4", "rejected": "five"}
    (tmp_path / "pairs.jsonl").write_text("\n".join([json.dumps(pair)] * 8))
    recipe = {"model": str(tiny_model), "data": {"train": str(tmp_path / "pairs.jsonl")}, "objective": "dpo"}
    assert graftkit.plan({**recipe, "adapter": "lora"}).chosen["learning_rate"] == pytest.approx(1e-4)
    assert graftkit.plan({**recipe, "adapter": "full"}).chosen["learning_rate"] == pytest.approx(1e-5)
    for optimizer, rate in (("lion", 2e-5), ("adafactor", 1e-4)):
        chosen = graftkit.plan({**recipe, "training": {"optimizer": optimizer}}).chosen
        assert chosen["learning_rate"] == pytest.approx(rate)


def test_what_is_chosen_is_the_same_every_time(minimal: dict[str, Any]) -> None:
    assert graftkit.plan(minimal).chosen == graftkit.plan(minimal).chosen


def test_what_is_said_is_left_as_it_is(minimal: dict[str, Any]) -> None:
    said = {"training": {"tokens_per_step": 2048, "learning_rate": 1e-4, "steps": 27}}
    plan = graftkit.plan({**minimal, **said})
    assert plan.chosen == {} and plan.corpus is None
    assert graftkit.plan({**minimal, "training": {"epochs": 2}}).chosen.keys() == {"tokens_per_step", "learning_rate"}


def test_a_step_holds_the_longest_record_that_is_asked_for(minimal: dict[str, Any]) -> None:
    minimal["data"]["max_length"] = 512
    assert graftkit.plan(minimal).bound.recipe.training.tokens_per_step == 512


def test_epochs_that_make_too_few_steps_are_told_with_what_to_write(minimal: dict[str, Any]) -> None:
    plan = graftkit.plan({**minimal, "training": {"epochs": 1}})
    [told] = [notice for notice in plan.notices if "hardly change a model" in notice]
    assert "training.epochs: 1 makes about 5 steps" in told and "write training: {epochs: 6}" in told
    enough = graftkit.plan({**minimal, "training": {"epochs": 6}})
    assert not [notice for notice in enough.notices if "hardly change a model" in notice]


@pytest.mark.parametrize(
    ("more", "share", "enough"),
    [({}, "0.4 epochs", 6), ({"tokens_per_step": 1024, "learning_rate": 1e-3}, "1 epoch", 15)],
    ids=["the rest is chosen", "all is said"],
)
def test_too_few_steps_are_told_with_what_to_write(
    minimal: dict[str, Any], tmp_path: Path, more: dict[str, Any], share: str, enough: int
) -> None:
    """In the plan and in the run, whether or not anything else is left to be chosen."""
    few = {**minimal, "training": {"steps": 2, "device": "cpu", **more}}
    [told] = [notice for notice in graftkit.plan(few).notices if "hardly change a model" in notice]
    assert f"training.steps: 2 makes about {share}, and" in told
    assert f"write training: {{epochs: {enough}}}, or leave steps out" in told
    assert told in graftkit.run({**few, "export": []}, out=tmp_path / "run").manifest["notices"]
    for key, warmup in (("warmup", 1), ("warmup_steps", 2), ("warmup_steps", 100)):
        risen = graftkit.plan({**few, "training": {**few["training"], key: warmup}})
        [told] = [notice for notice in risen.notices if "warmup" in notice]
        assert told == f"training.{key}: {warmup}: the rate rises in every one of 2 steps, and never falls"
    stays = graftkit.plan({**minimal, "training": {**few["training"], "steps": 12, "schedule": "wsd"}})
    [told] = [notice for notice in stays.notices if "never falls" in notice]
    assert told.startswith("training.decay: 0.1: with wsd that is one of 12 steps") and "{decay: 0.25}" in told
    falls = {"steps": 12, "schedule": "wsd", "decay": 0.25, **more}
    assert not [told for told in graftkit.plan({**minimal, "training": falls}).notices if "never falls" in told]
    other = graftkit.plan({**minimal, "training": {"steps": 20, "warmup_steps": 19, **more}})
    assert not [notice for notice in other.notices if "warmup" in notice]
    assert not [notice for notice in other.notices if "hardly change a model" in notice]


def test_the_estimate_of_all_records_is_what_the_run_encodes(
    minimal: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minimal["training"] = {"epochs": 1, "device": "cpu"}
    plan = graftkit.plan(minimal)
    assert plan.corpus is not None and not plan.corpus.sampled
    events: list[Event] = []
    found = graftkit.run(minimal, out=tmp_path / "run", on_event=events.append).manifest
    assert found["data"]["train_tokens"] == plan.corpus.tokens
    assert found["data"]["train_examples"] == plan.corpus.examples
    steps = [event.step.steps for event in events if isinstance(event, StepFinished)]
    assert steps[0] == len(steps) == estimate_steps(plan.bound.recipe, plan.corpus).steps
    assert found["chosen"] == plan.chosen
    assert found["recipe"]["training"]["tokens_per_step"] == plan.chosen["tokens_per_step"]
    assert [event.values for event in events if isinstance(event, Chosen)] == [plan.chosen]
    PlainLines().show(Chosen(plan.chosen))
    said = f"chosen by the records and the model: {describe_chosen(plan.chosen)}\n"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("count", [600, 5000])
def test_a_sample_of_many_records_says_about_what_all_have(tiny_model: Path, tmp_path: Path, count: int) -> None:
    rows = chat_file(tmp_path / "rows.jsonl", count)
    plan = graftkit.plan({"model": str(tiny_model), "data": {"train": rows, "holdout": 0}})
    assert plan.corpus is not None and plan.corpus.sampled and len(plan.corpus.lengths) <= 400
    whole = sum(len(example.ids) for s in plan.samples.train for example in plan.encoder.encode(s).examples)
    assert plan.corpus.tokens == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_a_long_text_is_estimated_by_its_beginning(tiny_model: Path, tmp_path: Path, ending: str) -> None:
    text = "".join(f"line {n} of a long text\n" for n in range(20_000))
    path = tmp_path / f"book.{ending}"
    path.write_text(text if ending == "txt" else json.dumps({"text": text}))
    plan = graftkit.plan({"model": str(tiny_model), "data": {"train": str(path), "holdout": 0}})
    found = plan.corpus or estimate_corpus(plan.encoder, plan.samples.train)
    assert found.sampled and sum(found.lengths) < 60_000
    assert found.tokens == pytest.approx(len(text), rel=0.05)


def test_the_plan_shows_what_the_training_comes_to(minimal: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(minimal))
    shown = CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml"), "--quick"])
    assert shown.exit_code == 0, shown.output
    assert "examples; 30 steps of 7." in shown.output and "chosen: training: {tokens_per_step: " in shown.output
    assert "time        not known before a run's first steps" in shown.output
    facts = json.loads(
        CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml"), "--quick", "--json"]).output
    )
    assert facts["training"]["exact"] and facts["training"]["steps"] == 30 and facts["time"]["seconds"] is None


def test_the_time_is_told_by_the_last_run_of_the_recipe(
    minimal: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    minimal["training"] = {"steps": 2, "device": "cpu"}
    Path("job.yaml").write_text(yaml.safe_dump(minimal))
    graftkit.run("job.yaml")
    command = ["job.yaml", "--quick", "--json", "--set", "training.steps=100"]
    time = json.loads(CliRunner().invoke(plan_command.command, command).output)["time"]
    assert time["seconds"] is not None and " s of training, at the " in time["text"]
    other = CliRunner().invoke(plan_command.command, [*command, "--set", "adapter.rank=3"]).output
    assert json.loads(other)["time"]["seconds"] is None


def test_a_run_that_goes_on_keeps_what_was_chosen(
    minimal: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minimal["training"] = {"device": "cpu"}
    cancel = graftkit.CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 2:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(minimal, out=tmp_path / "run", on_event=stop, cancel=cancel)
    chosen = json.loads((tmp_path / "run" / "manifest.json").read_text())["chosen"]
    monkeypatch.setattr(ObjectiveConfig, "examples_per_step", 3)  # as a later version might choose
    found = graftkit.run(minimal, out=tmp_path / "run", resume=True).manifest
    assert found["chosen"] == chosen and found["status"] == "finished"


def test_a_manifest_that_chose_nonsense_is_damaged(minimal: dict[str, Any], tmp_path: Path) -> None:
    graftkit.run(minimal, out=tmp_path / "run", overrides=["training.steps=1", "training.device=cpu"])
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted", "chosen": {"epochs": -1}}))
    with pytest.raises(FolderError, match=r"damaged: 'chosen\.epochs'"):
        graftkit.run(minimal, out=tmp_path / "run", resume=True)
