"""`toolkit plan` refuses what `toolkit run` refuses before it encodes a record, in the same words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from architectures import settings
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.errors import RequestError
from graftkit.testing import tiny_model_folder
from integration.conftest import RecipeMaker

TRAINED = {"tokenizer": {"train": {"use": "byte-level", "vocab_size": 300}}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a device that is not here": ({"training": {"steps": 2, "device": "cuda:99"}}, "device 'cuda:99' can't be used"),
    "peft where ids move": (
        {**TRAINED, "export": ["peft"]},
        "export 'peft' can't be written: tokens of the base model",
    ),
    "a base that is not extended": ({"export": ["extended-base"]}, "the export 'extended-base' can't be written"),
    "nothing to learn": ({"tokenizer": {"extend": {"tokens": 9, "min_frequency": 10**6}}}, "nothing|comes out as"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_refuses_what_the_run_refuses_in_the_same_words(
    case: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    sections, words = REFUSED[case]
    recipe = make_recipe(**sections)
    told = []
    for refuse in (lambda: graftkit.run(recipe, out=tmp_path / "run"), lambda: graftkit.plan(recipe, as_run=True)):
        with pytest.raises(RequestError, match=words) as caught:
            refuse()
        told.append((type(caught.value), str(caught.value), caught.value.exit_code))
    assert told[0] == told[1] and told[0][2] == 2
    assert not (tmp_path / "run").exists()


RECORDS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "classification": ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "2 texts with a label"),
    "regression": ([{"text": "a", "score": 1}, {"text": "b", "score": 2}], "2 texts with a number"),
    "similarity": (
        [{"sentence1": "a", "sentence2": "b", "score": n} for n in (1, 2)],
        "2 pairs of texts with a number",
    ),
    "dpo": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "1 pair of answers"),
    "sft": ([{"prompt": "a", "completion": "b"}], "1 completion"),
}


@pytest.mark.parametrize("objective", RECORDS)
def test_records_are_called_what_they_are_to_the_objective(tiny_model: Path, objective: str) -> None:
    rows, told = RECORDS[objective]
    recipe = {"model": str(tiny_model), "objective": objective, "training": {"steps": 1}, "data": {"holdout": 0}}
    found = graftkit.plan(recipe, train=rows).to_json()
    assert found["records"]["text"] == f"train: {told}; holdout: none"
    assert "; 1 step of " in found["training"]["text"] and "1 epochs" not in found["training"]["text"]


def test_a_plan_refuses_what_the_model_itself_can_not_do(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The file's names alone are right; the layers of the architecture are not all there."""
    folder = tiny_model_folder(tmp_path / "model", **settings("deepseek_v2"))
    recipe = make_recipe(model=str(folder), export=["peft"])
    told = []
    for refuse in (lambda: graftkit.run(recipe, out=tmp_path / "run"), lambda: graftkit.plan(recipe, as_run=True)):
        with pytest.raises(RequestError, match="for experts") as caught:
            refuse()
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("texts", "words"), [(("q", "im_end|>"), "together"), (("long " * 200, "long " * 201), "aise data.max_length")]
)
def test_the_command_tells_what_will_stop_the_run_at_its_records(
    make_recipe: RecipeMaker, tmp_path: Path, texts: tuple[str, ...], words: str
) -> None:
    """Though it encodes only some of them."""
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n<|{{ m.content }}<|im_end|>\n{% endfor %}"
    (tmp_path / "own.jinja").write_text(
        f"{turns}{{% if add_generation_prompt %}}<|im_start|>assistant\n<|{{% endif %}}"
    )
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps({"prompt": text, "response": "a"}) + "\n" for text in texts))
    data = {"train": str(records), "holdout": 0, "max_length": 64, "chat_template": str(tmp_path / "own.jinja")}
    recipe = make_recipe(data=data)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = CliRunner().invoke(plan_command.command, [str(tmp_path / "recipe.yaml"), "--quick", "--json"])
    notices = json.loads(told.stdout)["notices"]
    assert any(words in notice for notice in notices), notices
    with pytest.raises(RequestError, match=words):
        graftkit.run(recipe, out=tmp_path / "run")


def test_the_command_says_what_it_checked(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(tokenizer={"extend": {"words": ["graftkit"]}}, export=["peft", "merged"])
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(recipe))
    shown = CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml")])
    assert shown.exit_code == 0, shown.output
    words = "checked     all that run checks before it encodes records, on cpu, "
    assert words in shown.output
    quick = CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml"), "--quick"])
    assert "checked     recipe, files and records; not device, architecture and exports" in quick.output
    facts = json.loads(CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml"), "--json"]).output)
    assert (facts["checked"]["device"], facts["checked"]["packed"]) == ("cpu", True)
    assert facts["checked"]["new_rows"] >= 1 and f"{words}{facts['checked']['new_rows']} rows of" in shown.output
    assert "graftkit.flow.preflight" in sys.modules and list(tmp_path.glob("**/manifest.json")) == []
