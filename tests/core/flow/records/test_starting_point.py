"""A look at some of many records says what a look at all of them does, and says that it was one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit import PluginHost
from graftkit.cli.main import cli as toolkit
from graftkit.errors import RequestError
from graftkit.flow.records import starting_point
from graftkit.flow.records.starting_point import find_starting_point
from graftkit.recipe.load import load_recipe
from graftkit.testing import tiny_model_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_model_folder(tmp_path / "model")
    with (tmp_path / "train.jsonl").open("w") as file:
        for number in range(900):
            file.write(json.dumps({"prompt": f"say {number % 7}", "completion": "ab" * (1 + number // 100)}) + "\n")
    return tmp_path


def test_numbers_are_those_of_all_records(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records grow longer, so that the first ones alone would say something else."""
    every = find_starting_point(PluginHost(), str(place / "model"), str(place / "train.jsonl"))
    monkeypatch.setattr("graftkit.flow.records.starting_point._LOOKED_AT", 450)
    some = find_starting_point(PluginHost(), str(place / "model"), str(place / "train.jsonl"))
    assert (every.records, every.checked) == (900, 900) and (some.records, some.checked) == (900, 450)
    assert (some.max_length, some.objective, some.epochs) == (every.max_length, every.objective, every.epochs)
    assert some.steps == pytest.approx(every.steps, rel=0.05)


def test_init_says_how_many_were_checked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("graftkit.flow.records.starting_point._LOOKED_AT", 450)
    found = CliRunner().invoke(toolkit, ["init", "mine.yaml", "--model", "model", "--train", "train.jsonl"])
    assert found.exit_code == 0, found.output
    assert "checked are 450 of the records, evenly spread; toolkit plan checks all of them" in found.output
    assert "\n900 records, about" in found.output and "held out" not in found.output
    assert "  holdout: 0.05           # the share" in Path("mine.yaml").read_text()


@pytest.mark.parametrize(("records", "share"), [(3, 0.2), (90, 0.2), (160, 0.13), (400, 0.05), (9000, 0.05)])
def test_of_few_records_a_larger_share_is_held_out(records: int, share: float) -> None:
    assert starting_point._holdout_share(records) == share


def test_reasoning_left_out_later_is_learnt_answer_by_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = place / "model" / "tokenizer_config.json"
    settings = json.loads(config.read_text()) | {
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    }
    config.write_text(json.dumps(settings))
    said = [
        {"role": role, "content": f"text {n}", **({"reasoning_content": f"thought {n}"} if role == "assistant" else {})}
        for n, role in enumerate(["user", "assistant"] * 2)
    ]
    (place / "talks.jsonl").write_text("".join(json.dumps({"messages": said}) + "\n" for _ in range(30)))
    monkeypatch.chdir(place)
    done = CliRunner().invoke(toolkit, ["init", "mine.yaml", "--model", "model", "--train", "talks.jsonl"])
    assert done.exit_code == 0, done.output
    data = load_recipe("mine.yaml").recipe.data
    assert data.turns == "each" and data.dropped == "refuse" and "leaves out" not in done.output
    assert "example: the chat template leaves out earlier reasoning" in Path("mine.yaml").read_text()
    planned = graftkit.plan("mine.yaml")
    assert planned.encoder.encode(next(iter(planned.samples.train))).examples[0].loss_mask.any()


@pytest.mark.parametrize(
    ("record", "metric"),
    [
        ({"prompt": "say {}", "completion": "{} times"}, "exact-match"),
        ({"question": "count to {}", "answer": '[{}, "x"]'}, "json-equal"),
        ({"prompt": "as JSON: {}"}, "json-valid"),
        ({"messages": [{"role": "user", "content": "say {}"}]}, "json-valid"),
    ],
)
def test_init_writes_what_is_asked_for(
    record: dict[str, Any], metric: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe that can be run as it is, of prompts that have an answer and of such that have none."""
    monkeypatch.chdir(place)
    rows = [json.dumps(record).replace("{}", str(number)) for number in range(40)]
    Path("asked.jsonl").write_text("\n".join(rows))
    asked = ["init", "mine.yaml", "--model", "model", "--train", "asked.jsonl"]
    if metric == "json-valid":
        refused = CliRunner().invoke(toolkit, asked)
        assert "--objective says that here" in str(refused.exception)
    found = CliRunner().invoke(toolkit, [*asked, "--objective", "grpo"])
    assert found.exit_code == 0, found.output
    assert "held out are about 8 of 40 records: 5% would be too few" in found.output
    recipe = Path("mine.yaml").read_text()
    assert "objective: {use: grpo, group_size: 8, max_new_tokens: 128}" in recipe
    assert f"evaluation: {{metrics: {metric}, answers: 0}}" in recipe
    planned = graftkit.plan("mine.yaml")
    assert planned.bound.recipe.data.max_length == 192 and len(planned.samples.train) == 32


def test_init_refuses_what_the_records_are_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    asked = ["init", "mine.yaml", "--model", "model", "--train", "train.jsonl", "--objective"]
    for objective, told in (
        ("dpo", "the objective dpo learns from pairs"),
        ("gppo", "Did you mean 'grpo'"),
        ("distill", "the objective distill needs its field teacher"),
    ):
        refused = CliRunner().invoke(toolkit, [*asked, objective])
        assert isinstance(refused.exception, RequestError) and told in str(refused.exception)
        assert "says that here" not in str(refused.exception) and "`objective`" not in str(refused.exception)
    assert not Path("mine.yaml").exists()
    found = CliRunner().invoke(toolkit, [*asked, "sft"])
    assert found.exit_code == 0 and "objective" not in Path("mine.yaml").read_text()
