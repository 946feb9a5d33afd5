"""Runs that learn from answers which the model samples: what they learn, keep and refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner
from graftkit.cli.main import cli as toolkit
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError, LossError, RecipeError
from graftkit.flow.events import Event, Notice, StepFinished
from graftkit.flow.planning.describe_plan import described_training
from graftkit.flow.training import answers, rewards
from graftkit.flow.training.answers import metrics_of
from graftkit.interfaces.objective import SAMPLED_METRICS
from graftkit.model.generate import sample_answers
from graftkit.model.sampling import check_logits
from graftkit.training import sampled_loss
from graftkit.training.loop import planned_steps
from graftkit_metrics.json_values import JsonEqual
from made_records import written
from stopped_runs import run_until
from tokenizers import Tokenizer

VOWELS = {"use": "regex", "pattern": "[aeiou]"}


@pytest.fixture
def sampling(make_recipe: Any) -> Any:
    """Makes a recipe whose answers are worth most with a vowel."""

    def make(steps: int | None = 2, **sections: Any) -> dict[str, Any]:
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
    made: list[str] = []
    monkeypatch.setattr(rewards, "metrics_of", lambda bound, host: made.append("") or metrics_of(bound, host))
    recipe = sampling(8, export=["peft", "merged"], evaluation={"every": 4})
    result = graftkit.run(recipe, out=tmp_path / "whole")
    assert len(made) == 2, "once for the check of records, and once for all evaluations and steps"
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
    assert f"The reward of 8 steps, from {-steps[0]['loss']:.4f} to" in page and "share by step" in page
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


def test_a_run_that_is_kept_near_its_start_goes_on_to_the_same(sampling: Any, tmp_path: Path) -> None:
    """What it is compared with is the start, not what it went on from; answers all worth the same teach that, too.

    Two steps learn from the same answers; a run that is stopped between them goes on with these.
    """
    worthless = {"metrics": {"use": "contains", "text": "never said"}}
    near = {"beta": 0.5, "temperature": 0.8, "num_iterations": 2, "epsilon": 0.01, "epsilon_high": 0.02}
    recipe = sampling(4, objective=near, export=[])
    graftkit.run(recipe, out=tmp_path / "whole")
    lines = lines_of(tmp_path / "whole")
    assert abs(lines[0]["metrics"]["kl"]) < 1e-6 and all(line["metrics"]["kl"] > 1e-4 for line in lines[1:])
    told = [line["metrics"] for line in lines]
    assert [one["reward"] == two["reward"] for one, two in pairwise(told)] == [True, False, True]
    assert [one["clip_ratio"] > 0 for one in told] == [False, True, False, True]
    run_until(3, recipe, tmp_path / "stopped")
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    adapter = "adapter/adapter.safetensors"
    assert (tmp_path / "stopped" / adapter).read_bytes() == (tmp_path / "whole" / adapter).read_bytes()
    assert lines_of(tmp_path / "stopped") == lines
    graftkit.run(sampling(4, objective={"temperature": 0.8}, export=[]), out=tmp_path / "free")
    graftkit.run(sampling(4, objective=near, evaluation=worthless, export=[]), out=tmp_path / "worthless")
    assert lines_of(tmp_path / "free")[0]["metrics"]["reward"] == lines[0]["metrics"]["reward"]
    assert [line["metrics"]["kl"] for line in lines_of(tmp_path / "worthless")] == pytest.approx([0] * 4, abs=1e-6)


def test_logits_that_are_no_numbers_end_a_run_as_every_loss_does_that_goes_wrong(
    sampling: Any, chat_records: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the step, which of its records it is, the state before it, and what to do."""
    [seven] = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).encode("7", add_special_tokens=False).ids
    sampled: list[int] = []

    def damaged(network: Any, prompts: Any, *args: Any, **options: Any) -> Any:
        sampled.append(1)
        if len(sampled) > 2 and any(seven in prompt for prompt in prompts):  # after the evaluation and the first step
            check_logits(torch.tensor([[torch.nan]]))
        return sample_answers(network, prompts, *args, **options)

    monkeypatch.setattr(sampled_loss, "sample_answers", damaged)
    with pytest.raises(LossError, match=r"(?s)^step 3: the loss is nan.*--set training.learning_rate=") as ended:
        graftkit.run(sampling(4, export=[]), out=tmp_path / "run")
    assert "objective.beta" in str(ended.value) and "divergence_factor" not in str(ended.value)
    places = re.findall(rf"{chat_records}:(\d+)", str(ended.value))
    assert 0 < len(places) < 8 and all("7" in str(int(place) - 1) for place in places), "each says how many precede it"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


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
    masked = sampling(1, objective={"max_new_tokens": 8, "mask_truncated_completions": True}, export=[])
    [reason] = [
        text for text in graftkit.run(masked, out=tmp_path / "cut").manifest["notices"] if "no step had" in text
    ]
    [line] = lines_of(tmp_path / "cut")
    assert line["metrics"]["same_reward"] < 1, "that is not why"
    assert "nothing was learnt. Nothing is learnt of answers that are cut off" in reason


def test_what_can_not_be_sampled_is_refused_before_work_is_done(sampling: Any, tmp_path: Path) -> None:
    for fields, message in (
        ({"rewards": {"regexp": 1}}, r"evaluation.metrics has no 'regexp'"),
        ({"rewards": {"regex": 0}}, "all weights are 0"),
        ({"top_k": 1}, "all answers to a prompt are the same"),
        ({"max_new_tokens": 64}, "no room for a prompt"),
        ({"epsilon_high": 0.28}, "epsilon_high: with num_iterations 1 .* every ratio is 1, and nothing is clipped"),
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


def test_held_out_records_that_can_not_be_rewarded_are_refused_before_one_is_answered(
    sampling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_loss, "sample_answers", lambda *args, **named: pytest.fail("answers are sampled"))
    train = written(tmp_path / "train.jsonl", [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(9)])
    held = written(
        tmp_path / "held.jsonl", [{"prompt": "a", "completion": "no JSON"}, {"prompt": "b " * 99, "completion": "{}"}]
    )
    data = {"train": str(train), "holdout": str(held), "max_length": 64}
    recipe = sampling(data=data, evaluation={"metrics": "json-equal"}, export=[])
    with pytest.raises(DataError, match="held.jsonl:1.*json-equal compares JSON"):
        graftkit.run(recipe, out=tmp_path / "run")


def test_a_plan_checks_each_record_once_that_is_rewarded(
    sampling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are held out, and of the training records the first ones, where each is seen by some step."""
    checked: list[str] = []
    check = JsonEqual.check
    monkeypatch.setattr(JsonEqual, "check", lambda self, one: checked.append(one.record.where) or check(self, one))
    monkeypatch.setattr(answers, "_CHECKED_FIRST", 2)
    said = [{"prompt": f"say {n}", "completion": f"{n}"} for n in range(4)]
    asked = [{"prompt": f"ask {n}", "completion": f"{n}"} for n in range(3)]
    train, held = written(tmp_path / "train.jsonl", said), written(tmp_path / "held.jsonl", asked)
    data = {"train": str(train), "holdout": str(held)}
    metrics = {"answers": 2, "metrics": ["json-equal", VOWELS]}
    recipe = sampling(None, data=data, evaluation=metrics, objective={"rewards": {"json-equal": 1.0}}, export=[])
    recipe["training"]["epochs"] = 1
    graftkit.plan(recipe, as_run=True)
    assert checked == [f"{held}:1", f"{held}:2", f"{held}:3", f"{train}:1", f"{train}:2"]
    checked.clear()
    for part in ("training.epochs=0.5", "training.steps=1"):  # a step has two records of the four
        graftkit.plan(recipe, overrides=[part, "training.tokens_per_step=24", "data.max_length=24"], as_run=True)
        assert checked[:3] == [f"{held}:1", f"{held}:2", f"{held}:3"] and len(checked) == 5, part
        checked.clear()
    several = [{"path": str(train), "weight": 0.5}, {"path": str(train), "weight": 2, "first": 1}]
    graftkit.plan({**recipe, "data": {**data, "train": several}}, as_run=True)
    assert checked[3:] == [f"{train}:1"], "the records of the other data set are not all seen"
    checked.clear()
    written(train, [*said, {"prompt": "say", "completion": "no JSON"}])
    monkeypatch.setattr(answers, "_CHECKED_FIRST", 9)
    with pytest.raises(DataError, match="train.jsonl:5.*json-equal compares JSON"):
        graftkit.plan(recipe, as_run=True)
    checked.clear()
    written(train, said)
    monkeypatch.setattr(sampled_loss, "sample_answers", lambda *args, **named: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        graftkit.run(recipe, out=tmp_path / "run")
    assert [checked.count(f"{path}:{n}") for path in (train, held) for n in (1, 2, 3)] == [1] * 6


def test_preview_says_that_answers_are_compared_and_not_learnt(sampling: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "recipe.yaml", [sampling()])
    shown = CliRunner().invoke(toolkit, ["preview", str(path), "--records", "1"])
    assert shown.exit_code == 0, shown.output
    assert "nothing of this is learnt" in shown.output and "are compared with; lengths" in shown.output


def test_a_run_whose_records_change_goes_on_when_they_are_back(
    sampling: Any, chat_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts are read from the records in each step, where there is room for those of one alone."""
    monkeypatch.setattr(rewards, "_KEPT_TOKENS", 0)
    recipe, before = sampling(4, export=[]), chat_records.read_bytes()

    def edit(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 2:
            chat_records.write_text("")

    with pytest.raises(
        DataError, match="has changed since .*checked\n.*the old records back, and go on with resume=True"
    ):
        graftkit.run(recipe, out=tmp_path / "run", on_event=edit)
    chat_records.write_bytes(before)
    graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert [line["step"] for line in lines_of(tmp_path / "run")] == [1, 2, 3, 4]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_prompts_need_no_answer_where_no_metric_compares_with_one(sampling: Any, tmp_path: Path) -> None:
    """Conversations that end with a user's message are such, whatever the assistant says in them before."""
    asked = [[user(f"say {n}")] for n in range(8)]
    asked += [[user("hi"), assistant("a"), user("b"), assistant("c"), user(f"and {n}")] for n in range(8)]
    asked += [[user(f"now {n}"), assistant(f"{n}!")] for n in range(3)]
    train = written(tmp_path / "train.jsonl", [{"messages": messages} for messages in asked])
    held = written(tmp_path / "held.jsonl", [{"prompt": [user(f"tell {n}")]} for n in range(3)])
    texts = written(tmp_path / "texts.jsonl", [{"prompt": f"once {n}", "id": str(n)} for n in range(3)])
    long = written(tmp_path / "long.jsonl", [{"prompt": "far " * 200}])
    data = {"train": [str(train), str(texts), str(long)], "holdout": str(held), "max_length": 99}
    metrics = [VOWELS, {"use": "contains", "text": "a"}, "json-valid"]
    recipe = sampling(4, data=data, evaluation={"metrics": metrics, "answers": 3, "every": 2}, export=["merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    told = "\n".join(result.manifest["notices"])
    assert "the chat template has" not in told, "earlier answers are learnt by nobody"
    assert "1 of 23 records are prompts that leave no room for an answer within 99 tokens" in told
    assert "nothing left to learn" not in told and "without a stop token" not in told and "longer than" not in told
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    assert result.after is not None and result.after.answers == 3
    answers = json.loads((tmp_path / "run" / "answers-after.json").read_text())["answers"]
    assert [answer["question"] for answer in answers] == ["tell 0", "tell 1", "tell 2"]
    assert all(answer["expected"] == "" and answer["prompt"].endswith("assistant\n") for answer in answers)
    assert all(line["tokens"] > line["loss_tokens"] > 0 for line in lines_of(tmp_path / "run") if "loss" in line)
    path = written(tmp_path / "recipe.yaml", [recipe])
    shown = CliRunner().invoke(toolkit, ["preview", str(path), "--records", "9"])
    assert "nothing of this is learnt" in shown.output and "and 0<|im_end|>" in shown.output, shown.output
    planned = CliRunner().invoke(toolkit, ["plan", str(path), "--quick"])
    assert "marked is" in shown.output
    assert planned.exit_code == 0, planned.output
    of_run, of_export = graftkit.evaluate([tmp_path / "run", tmp_path / "run" / "exports" / "merged"])
    assert "measured is the mean reward of what is sampled" in "\n".join(of_run.notices)
    for found in (of_run.measured, of_export.measured):
        assert (found.holdout_loss, found.metrics) == (result.after.holdout_loss, result.after.metrics)
        assert found.scores == result.after.scores


def test_records_without_an_answer_are_refused_where_one_is_needed(
    sampling: Any, make_recipe: Any, tmp_path: Path
) -> None:
    prompts = str(written(tmp_path / "prompts.jsonl", [{"messages": [user(f"say {n}")]} for n in range(9)]))
    texts = str(written(tmp_path / "texts.jsonl", [{"prompt": f"say {n}", "reply": "a"} for n in range(9)]))
    data = {"train": prompts, "holdout": 0.2}
    for metrics, fields in (
        ("exact-match", {}),
        ({"use": "regex", "pattern": "a", "match": "same"}, {}),
        (["contains", VOWELS], {}),
        (["exact-match", VOWELS], {"objective": {"rewards": {"regex": 1}}, "evaluation": {"answers": 2}}),
    ):
        sections = {**fields, "evaluation": {"metrics": metrics, **fields.get("evaluation", {})}}
        with pytest.raises(
            DataError, match="prompts.jsonl:1: the record has no expected answer, with which the metric"
        ):
            graftkit.plan(sampling(data=data, **sections))
    rewarded = {"objective": {"rewards": {"regex": 1}}, "evaluation": {"metrics": ["exact-match", VOWELS]}}
    assert len(graftkit.plan(sampling(data=data, **rewarded)).samples.train) == 7
    for path, told in ((prompts, "no turn of the assistant"), (texts, "another column answers it")):
        with pytest.raises(DataError, match=f"(?s){told}.*objective: grpo"):
            graftkit.plan(make_recipe(data={"train": path, "holdout": 0.2}))
    planned = graftkit.plan(sampling(data={"train": texts, "holdout": 0.2}))
    assert any("reply" in notice for notice in planned.notices), "columns that are not read are told"
    ended = str(written(tmp_path / "ended.jsonl", [{"prompt": [user("a"), assistant("b")]}]))
    with pytest.raises(DataError, match="the prompt's last message is the assistant's"):
        graftkit.plan(sampling(data={"train": ended, "holdout": 0.0}))


def test_a_plan_counts_every_step_that_learns_from_the_same_answers(sampling: Any) -> None:
    once, thrice = (
        graftkit.plan(sampling(None, objective={"num_iterations": count}), overrides=["training.epochs=2"])
        for count in (1, 3)
    )
    assert once.corpus and thrice.corpus
    told = described_training(thrice, thrice.corpus)
    steps = planned_steps(thrice.corpus.lengths, thrice.bound.recipe.training, repeats=3)
    assert told["steps"] == len(steps) == 3 * described_training(once, once.corpus)["steps"] and told["epochs"] == 2
    assert steps[0] == steps[2] != steps[3], "the same prompts"


def test_files_are_read_once_for_the_records_of_many_steps(
    sampling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step takes does not grow with the records that it does not see."""
    read: list[int] = []

    def at(samples: Samples, numbers: Collection[int]) -> Samples:
        if len(samples) > 40:  # those to learn from
            read.append(len(numbers))
        return own(samples, numbers)

    own = Samples.at
    monkeypatch.setattr(Samples, "at", at)
    recipe = sampling(8, export=[], evaluation={"metrics": {"use": "contains", "text": "a"}})
    graftkit.run(recipe, out=tmp_path / "whole")
    whole, lines = list(read), lines_of(tmp_path / "whole")
    assert len(whole) == 1, "those of all steps"
    read.clear()
    monkeypatch.setattr(rewards, "_KEPT_TOKENS", 700)
    graftkit.run(recipe, out=tmp_path / "parts")
    assert 3 < len(read) < 8 and sum(read) < 2 * sum(whole), read
    assert lines_of(tmp_path / "parts") == lines


@pytest.mark.parametrize("data", [{"overflow": "truncate"}, {"overflow": "error"}, {"turns": "each"}])
def test_a_record_is_asked_whose_own_answer_is_too_long(
    data: dict[str, str], sampling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the answer is learnt; metrics compare with all of it."""
    long = "a long answer " * 30
    records = [{"messages": [user(f"say {n}"), assistant(long if n % 3 else "short")]} for n in range(12)]
    texts = [{"prompt": f"once {n}", "completion": long} for n in range(4)]
    train = [str(written(tmp_path / f"{n}.jsonl", each)) for n, each in enumerate((records, texts))]
    told: dict[str, str] = {}

    def noted(metrics: Any, given: Any) -> dict[str, float]:
        told[given.prompt] = given.expected
        return {label: float(len(given.answer) % 3) for label in metrics}

    monkeypatch.setattr(rewards, "scores_of", noted)
    sections = {"data": {"train": train, "holdout": 0.2, "max_length": 60, **data}, "export": []}
    result = graftkit.run(sampling(4, evaluation={"metrics": "exact-match"}, **sections), out=tmp_path / "run")
    notices = "\n".join(result.manifest["notices"])
    assert "longer than" not in notices and "left out" not in notices, notices
    for prompt, expected in told.items():
        number = int(re.findall(r"(?:say|once) (\d+)", prompt)[-1])
        assert expected.strip() == (long if "once" in prompt or number % 3 else "short").strip()
    assert len(told) == 16, "each record is asked"
