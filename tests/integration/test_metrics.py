"""Answers are scored by the metrics of the recipe, built in or a plugin's, before training and after it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit import Answered, Conversation, Provider, hookimpl
from graftkit.errors import Cancelled, DataError, PluginCallError, RecipeError
from graftkit.flow.plan_of_run import plan
from made_records import written


class Length:
    """How long an answer is, as a share of the expected one."""

    def score(self, answered: Answered) -> float:
        assert isinstance(answered.record, Conversation) and answered.record.messages[-1].content == answered.expected
        assert answered.prompt.endswith("assistant\n") and answered.record.where.rpartition(":")[2].isdigit()
        object.__setattr__(answered.record.messages[-1], "content", "")  # it has a record of its own
        object.__setattr__(answered.record, "where", "")
        return len(answered.answer) / len(answered.expected)


SCORES: list[Any] = [float("nan")]


class NoNumber:
    def score(self, answered: Answered) -> float:
        return SCORES[-1]


STOP: list[graftkit.CancelToken] = []
SCORED: list[Answered] = []


class Stopping:
    """Somebody stops the run while this is asked, such as one that calls a slow service."""

    def score(self, answered: Answered) -> float:
        SCORED.append(answered)
        STOP[-1].cancel()
        return 0.0


class Mine:
    @hookimpl
    def graftkit_metrics(self) -> list[Provider]:
        return [
            Provider(name="length", target=f"{__name__}:Length"),
            Provider(name="no-number", target=f"{__name__}:NoNumber"),
            Provider(name="stopping", target=f"{__name__}:Stopping"),
        ]


def test_each_metrics_mean_stands_in_manifest_report_and_answers(make_recipe: Any, tmp_path: Path) -> None:
    metrics = [
        "exact-match",
        "length",
        {"use": "regex", "pattern": "[0-9]", "name": "digits"},
        {"use": "length", "name": "again"},
    ]
    recipe = make_recipe(evaluation={"answers": 3, "max_new_tokens": 4, "metrics": metrics})
    result = graftkit.run(recipe, out=tmp_path / "run", host=graftkit.PluginHost(plugins=[Mine()]))
    kept = json.loads((tmp_path / "run/answers-after.json").read_text())["answers"]
    after = result.metrics["after"]
    assert result.after is not None and result.after.scores == after["scores"] and after["answers"] == len(kept) == 3
    for label in ("exact-match", "length", "digits", "again"):
        assert after["scores"][label] == pytest.approx(sum(answer["scores"][label] for answer in kept) / 3)
    for answer in kept:
        assert answer["scores"]["length"] == len(answer["answer"]) / len(answer["expected"])
        assert answer["right"] == (answer["scores"]["exact-match"] == 1)
    page = (tmp_path / "run/report.html").read_text()
    assert all(f"{label} (3 answers)" in page for label in ("exact match", "length", "digits"))
    names = [provider["name"] for provider in result.manifest["providers"]["metrics"]]
    assert names == ["exact-match", "length", "regex", "length"]


@pytest.mark.parametrize(
    ("score", "told"), [(float("nan"), "nan"), (1e308, "1e[+]308"), (10**400, "a very long number")]
)
def test_a_score_that_is_no_number_names_the_record(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, told: str
) -> None:
    monkeypatch.setattr(f"{__name__}.SCORES", [score])
    recipe = make_recipe(evaluation={"answers": 1, "max_new_tokens": 2, "metrics": "no-number"})
    place = re.escape(recipe["data"]["train"])
    with pytest.raises(PluginCallError, match=rf"'no-number' scored the answer at {place}:\d+ with {told}") as caught:
        graftkit.run(recipe, out=tmp_path / "run", host=graftkit.PluginHost(plugins=[Mine()]))
    assert caught.value.where == "plugin 'Mine'"


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("json-equal", "json-equal compares JSON, which the expected answer is not"),
        ({"use": "regex", "pattern": "(zebra)", "match": "same"}, "finds '\\(zebra\\)' nowhere in the expected answer"),
    ],
)
def test_records_that_a_metric_can_not_score_are_refused_in_the_plan(
    make_recipe: Any, tiny_model: Path, tmp_path: Path, metric: Any, told: str
) -> None:
    """Before any work, of records that are answered alone; an evaluation does so before it measures."""
    recipe = make_recipe(evaluation={"answers": 1, "max_new_tokens": 2, "metrics": [metric]})
    host = graftkit.PluginHost()

    def planned(*overrides: str) -> Any:
        return plan(recipe, overrides=overrides, as_run=True, host=host)

    for work in (planned, lambda: graftkit.run(recipe, out=tmp_path / "run", host=host)):
        with pytest.raises(DataError, match=told) as caught:
            work()
        assert caught.value.where.startswith(recipe["data"]["train"]) and not (tmp_path / "run").exists()
    assert planned("evaluation.answers=0").checked
    with pytest.raises(DataError, match=told):  # a holdout loss is of rewards then
        planned("evaluation.answers=0", "objective={use: grpo, group_size: 2, max_new_tokens: 4}")
    records, begun = [{"prompt": "a", "completion": "b"}], list[Any]()
    asked = ["evaluation.answers=1", f"evaluation.metrics={json.dumps([metric])}"]
    with pytest.raises(DataError, match=told):
        graftkit.evaluate(tiny_model, records, overrides=asked, on_event=begun.append)
    assert not [event for event in begun if getattr(event, "stage", "") == "evaluation"]


def test_an_answer_that_is_cut_off_is_compared_as_a_whole(tiny_model: Path) -> None:
    """Of a conversation that is the one which is cut, and none after it."""
    long = "word " * 20
    turns = [{"role": role, "content": f"{role} {long}"} for role in ("user", "assistant") * 2]
    turns[1]["content"] = "short"
    for records, length, expected in (
        ([{"prompt": "say", "completion": long}, {"prompt": "say", "completion": "no"}], 40, [long, "no"]),
        ([{"messages": turns}], 340, [turns[3]["content"]]),
        ([{"messages": [*turns[:2], *turns[2:], *turns[2:]]}], 340, [turns[3]["content"]]),
    ):
        asked = ["data.overflow=truncate", f"data.max_length={length}", "evaluation.answers=2"]
        [found] = graftkit.evaluate(tiny_model, records, overrides=[*asked, "evaluation.max_new_tokens=1"])
        assert any("lose their end" in notice for notice in found.notices)
        assert [answer.answered.expected for answer in found.answers] == expected
    told = {"drop_turns": "no record fits in it with its first answer", "drop": "no record fits in it."}
    for overflow, way in {**told, "truncate": "what stands before the first token to learn fills it"}.items():
        asked = [f"data.overflow={overflow}", "data.max_length=8"]
        with pytest.raises(DataError, match="not one of 1 records has a token to measure within 8 tokens") as refused:
            graftkit.evaluate(tiny_model, [{"prompt": "say it " * 2, "completion": long}], overrides=asked)
        assert way in str(refused.value)


def test_two_metrics_of_one_name_are_refused(make_recipe: Any, tmp_path: Path) -> None:
    recipe = make_recipe(evaluation={"answers": 1, "metrics": ["exact-match", "exact-match"]})
    with pytest.raises(RecipeError, match="two are called 'exact-match'"):
        graftkit.run(recipe, out=tmp_path / "run")


@pytest.mark.parametrize("objective,answers", [("sft", 3), ({"use": "grpo", "group_size": 2, "max_new_tokens": 4}, 0)])
def test_a_run_stops_between_two_scores(make_recipe: Any, tmp_path: Path, objective: Any, answers: int) -> None:
    SCORED.clear()
    STOP.append(graftkit.CancelToken())
    evaluation = {"metrics": ["stopping"], "max_new_tokens": 4, "answers": answers}
    recipe = make_recipe(objective=objective, evaluation=evaluation)
    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "run", host=graftkit.PluginHost(plugins=[Mine()]), cancel=STOP[-1])
    assert len(SCORED) == 1


def test_a_record_that_no_answer_can_be_scored_to_is_refused_before_a_step(make_recipe: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + 1 =", "completion": f" {n + 1}" if n != 7 else " none"} for n in range(9)]
    objective = {"use": "grpo", "group_size": 2, "max_new_tokens": 4}
    data = {"train": str(written(tmp_path / "records.jsonl", rows)), "holdout": 0.0}
    for metric, told in (
        ({"use": "regex", "pattern": r"\d+", "match": "same"}, "regex finds"),
        ("json-equal", "json-equal"),
    ):
        recipe = make_recipe(objective=objective, data=data, evaluation={"metrics": [metric]})
        with pytest.raises(DataError, match=f"the metric {told}") as refused:
            graftkit.run(recipe, out=tmp_path / "run")
        assert refused.value.where.endswith("records.jsonl:8")
        assert not (tmp_path / "run").exists(), "nothing was encoded"
    data = {**data, "max_length": 16}
    training = {**recipe["training"], "steps": 2, "tokens_per_step": 16}
    few = make_recipe(objective=objective, data=data, evaluation={"metrics": ["json-equal"]}, export=[])
    assert graftkit.run({**few, "training": training}, out=tmp_path / "run"), "no step sees that record"
