"""Answers that are shown while a model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.flow.events import Event, SampleAnswered, StepFinished
from graftkit.flow.training import sample_answers
from graftkit.flow.training.sample_answers import SampleAnswers


@pytest.fixture
def recipe(make_recipe: Any) -> dict[str, Any]:
    made: dict[str, Any] = make_recipe(
        adapter={"use": "lora", "rank": 2, "dropout": 0.2}, evaluation={"answers": 4, "max_new_tokens": 4}
    )
    made["training"]["steps"] = 8
    return made


def test_training_computes_the_same_with_them(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_answers, "SHARE", 1e6)
    seen: list[Event] = []
    shown = graftkit.run(recipe, out=tmp_path / "shown", on_event=seen.append)
    samples = [event for event in seen if isinstance(event, SampleAnswered)]
    assert [event.step for event in samples] == [1, 2, 3, 4], "each of the four records once"
    assert all(event.question.startswith("say ") and event.expected.endswith("!") for event in samples)
    assert len({event.where for event in samples}) == 4 and ".jsonl:" in samples[0].where
    monkeypatch.setattr(SampleAnswers, "after_step", lambda self, step: None)
    plain = graftkit.run(recipe, out=tmp_path / "plain")
    for name in ("adapter/adapter.safetensors", "answers-after.json", "holdout-worst.json"):
        assert (shown.folder / name).read_bytes() == (plain.folder / name).read_bytes(), name


def test_they_take_little_of_the_time_of_training(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 10 s of a clock on which each token takes 1 s: at first there is no time for a whole answer."""
    recipe["training"]["steps"] = 100
    now = 0.0
    made: list[float] = []

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now

    answer = sample_answers.generate_greedily

    def slow(network: Any, prompts: Any, *, poll: Any, **options: Any) -> Any:
        def ticking(tokens: int) -> None:
            nonlocal now
            now += 1.0
            made.append(now)
            poll(tokens)

        return answer(network, prompts, poll=ticking, **options)

    after_step = SampleAnswers.after_step

    def step_of_ten_seconds(self: Any, step: Any) -> None:
        import dataclasses

        after_step(self, dataclasses.replace(step, seconds=10.0))

    monkeypatch.setattr(sample_answers, "time", Clock)
    monkeypatch.setattr(sample_answers, "generate_greedily", slow)
    monkeypatch.setattr(SampleAnswers, "after_step", step_of_ten_seconds)
    seen: list[Event] = []
    graftkit.run(recipe, out=tmp_path / "run", on_event=seen.append)
    samples = [event.step for event in seen if isinstance(event, SampleAnswered)]
    steps = sum(isinstance(event, StepFinished) for event in seen)
    assert samples and len(made) <= 0.01 * 10 * steps + 1, "one token more than there is time for, at most"


def test_a_recipe_that_asks_for_no_answers_shows_none(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_answers, "SHARE", 1e6)
    seen: list[Event] = []
    graftkit.run({**recipe, "evaluation": {}}, out=tmp_path / "run", on_event=seen.append)
    assert not any(isinstance(event, SampleAnswered) for event in seen)
