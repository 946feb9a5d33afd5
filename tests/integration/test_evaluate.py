"""`toolkit evaluate` and `graftkit.evaluate`: what records say of finished models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner, Result
from encoder_models import encoder_folder
from graftkit.cli.evaluate import command
from graftkit.errors import Cancelled, DataError, GraftkitError, RecipeError, RequestError
from graftkit.flow.answering.reload import AdapterBase
from graftkit.flow.events import Event, Progress, StageFinished
from made_records import labelled_texts, written

QUESTIONS = [{"question": f"what is {n}?", "answer": f"it is {n + 1}, of course"} for n in range(30)]
TEXTS = labelled_texts(80)


def asked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    """A run on columns that are called otherwise, with a quantized base, answers and two exports."""
    folder = tmp_path_factory.mktemp("evaluate")
    records = [{"q": each["question"], "a": each["answer"]} for each in QUESTIONS]
    columns = {"question": "q", "answer": "a"}
    recipe = {
        "model": str(tiny_model),
        "data": {
            "train": {"path": str(written(folder / "records.jsonl", records)), "columns": columns},
            "holdout": 0.2,
            "max_length": 96,
        },
        "quantizer": "nf4",
        "training": {"steps": 6, "tokens_per_step": 512, "learning_rate": 1e-2, "device": "cpu", "dtype": "float32"},
        "evaluation": {"answers": 4, "max_new_tokens": 12, "metrics": ["contains", "exact-match"]},
        "export": ["peft", "merged"],
        "proof": "later",
    }
    return graftkit.run(recipe, out=folder / "run")


def test_a_run_and_its_exports_measure_what_the_run_measured(run: graftkit.RunResult, tiny_model: Path) -> None:
    sources = [run.folder, run.exports["peft"], run.exports["merged"], tiny_model]
    own, peft, merged, base = graftkit.evaluate(sources)
    assert run.after is not None and own.measured == run.after, "the same records, the same code, the same numbers"
    assert peft.measured == run.after
    assert merged.measured.holdout_loss == pytest.approx(run.after.holdout_loss, abs=1e-4)
    assert merged.measured.scores == run.after.scores
    assert base.measured.holdout_loss > run.after.holdout_loss + 1, "the model before training, unquantized"
    kept = json.loads((run.folder / "answers-after.json").read_text())["answers"]
    assert [answer.to_json() for answer in own.answers] == kept
    facts = run.manifest["data"]
    assert (own.records, own.tokens, own.loss_tokens) == (6, facts["holdout_tokens"], facts["holdout_loss_tokens"])


def test_other_records_are_read_as_the_runs_are(run: graftkit.RunResult, tmp_path: Path) -> None:
    path = written(tmp_path / "more.jsonl", [{"q": "what is 77?", "a": "it is 78, of course"}])
    [found] = graftkit.evaluate(run.folder, path, overrides=["evaluation.answers=0"])
    assert found.records == 1 and not found.answers and found.measured.answers == 0 and not found.notices
    own = [json.loads(line) for line in (run.folder.parent / "records.jsonl").read_text().splitlines()]
    [found] = graftkit.evaluate(run.exports["merged"], own, overrides=["evaluation.answers=0"])
    assert found.notices[0] == "24 of 30 records are among those that the recipe trains on"
    assert len(found.notices) == 2 and "its proof was put off" in found.notices[1]
    with pytest.raises(DataError, match="no format fits"):
        graftkit.evaluate(run.exports["merged"], {"path": str(path), "unused": []})


def test_training_records_that_are_not_looked_at_are_told_of(
    run: graftkit.RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "more.jsonl", [{"q": "what is 77?", "a": "it is 78, of course"}])
    told = "whether these records are among those that the recipe trains on was not looked at: "
    monkeypatch.setattr("graftkit.flow.planning.evaluation._MOST_COMPARED", 100)
    [large] = graftkit.evaluate(run.folder, path, overrides=["evaluation.answers=0"])
    assert [notice.removeprefix(told) for notice in large.notices] == ["they are files of 0 MB"]
    records = run.folder.parent / "records.jsonl"
    records.rename(records.with_suffix(".away"))
    try:
        [gone] = graftkit.evaluate(run.folder, path, overrides=["evaluation.answers=0"])
    finally:
        records.with_suffix(".away").rename(records)
    assert [notice.startswith(told) for notice in gone.notices] == [True]


def test_a_model_is_measured_as_transformers_computes_it(tiny_model: Path, tmp_path: Path) -> None:
    """The loss over the answers' tokens and their end, from transformers' own logits and template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = written(tmp_path / "questions.jsonl", QUESTIONS)
    [found] = graftkit.evaluate(tiny_model, path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    total, count, size = 0.0, 0, 0
    for record in QUESTIONS:
        messages = [{"role": "user", "content": record["question"]}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = tokenizer(prompt, add_special_tokens=False).input_ids
        answer = tokenizer(record["answer"] + "<|im_end|>", add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([start + answer])).logits[0, len(start) - 1 : -1].double()
        total -= logits.log_softmax(1)[range(len(answer)), answer].sum().item()
        count, size = count + len(answer), size + len(record["answer"].encode())
    [handed] = graftkit.evaluate(tiny_model, (dict(record) for record in QUESTIONS))
    assert handed.measured == found.measured
    with pytest.raises(DataError, match="nothing to learn|empty") as caught:
        graftkit.evaluate(tiny_model, [QUESTIONS[0], {"question": "what?", "answer": ""}])
    assert caught.value.where.startswith("records:2")
    assert found.loss_tokens == count
    assert found.measured.holdout_loss == pytest.approx(total / count, rel=1e-6)
    assert found.measured.bits_per_byte == pytest.approx(total / math.log(2) / size, rel=1e-6)


def test_models_with_a_head_are_measured_by_what_it_tells(tmp_path: Path) -> None:
    path, bert = written(tmp_path / "texts.jsonl", TEXTS), str(encoder_folder(tmp_path / "bert", "bert"))
    training = {"steps": 24, "tokens_per_step": 512, "learning_rate": 1e-2, "device": "cpu"}
    recipe = {
        "model": bert,
        "data": {"train": str(path), "holdout": 0.2, "max_length": 64},
        "objective": "classification",
        "training": training,
        "export": ["merged"],
        "proof": "later",
    }
    result = graftkit.run(recipe, out=tmp_path / "run")
    merged = result.exports["merged"]
    own, export = graftkit.evaluate([result.folder, merged])
    assert own.measured == result.after and export.measured.metrics == dict(own.measured.metrics)
    away = tmp_path / "classifier"
    merged.rename(away)
    [alone] = graftkit.evaluate(away, path)
    assert alone.measured.metrics["accuracy"] > 0.9 and alone.measured.bits_per_byte is None and alone.records == 80
    shown = asked(away, "--data", path).stdout
    assert shown.splitlines()[-1] == f"80 records, {alone.tokens:,} tokens", "of which none is in the loss by itself"
    said = json.loads((away / "config.json").read_text())
    unnamed = {key: value for key, value in said.items() if key not in ("id2label", "label2id", "problem_type")}
    nameless = tmp_path / "nameless"  # as transformers saves a classifier of two labels that nobody named
    shutil.copytree(away, nameless, ignore=shutil.ignore_patterns("graftkit.json"))
    (nameless / "config.json").write_text(json.dumps(unnamed))
    numbered = [{**each, "label": f"LABEL_{int(each['label'] == 'good')}"} for each in TEXTS]
    by = ["objective=classification"]
    [same] = graftkit.evaluate(nameless, written(tmp_path / "numbered.jsonl", numbered), overrides=by)
    assert same.measured.metrics == alone.measured.metrics
    with pytest.raises(DataError, match="the label 'fine' is none of the model's: bad, good"):
        graftkit.evaluate(away, written(tmp_path / "fine.jsonl", [*TEXTS, {"text": "so so", "label": "fine"}]))
    with pytest.raises(RequestError, match="the objective sft does not measure models that score whole sequences"):
        graftkit.evaluate(away, path, overrides=["objective=sft"])
    with pytest.raises(RecipeError, match="the objective classification is of a model which writes no answers"):
        graftkit.evaluate(away, path, overrides=["evaluation.answers=4"])


def test_models_with_another_head_are_refused_before_one_is_measured(
    run: graftkit.RunResult, tiny_model: Path, tmp_path: Path
) -> None:
    bert = encoder_folder(tmp_path / "bert", "bert")
    events: list[Event] = []
    for first in (run.folder, run.exports["merged"], run.exports["peft"], tiny_model):
        with pytest.raises(RequestError, match="the objective sft does not measure models that fill in") as caught:
            graftkit.evaluate([first, bert], QUESTIONS, overrides=["objective=sft"], on_event=events.append)
        assert caught.value.where == str(bert)
    assert {event.stage for event in events if isinstance(event, StageFinished)} == {"records"}


def test_an_encoder_is_measured_by_the_masks_of_its_run(tmp_path: Path) -> None:
    texts = written(tmp_path / "plain.jsonl", [{"text": each["text"]} for each in TEXTS])
    recipe = {
        "model": str(encoder_folder(tmp_path / "bert", "bert")),
        "data": {"train": str(texts), "holdout": 0.2, "max_length": 64},
        "objective": "masked-lm",
        "training": {"steps": 2, "tokens_per_step": 512, "learning_rate": 1e-2, "device": "cpu"},
    }
    result = graftkit.run(recipe, out=tmp_path / "run")
    own, base = graftkit.evaluate([result.folder, recipe["model"]])
    assert own.measured == result.after and base.measured == result.before
    [alone] = graftkit.evaluate(recipe["model"], texts)
    assert alone.records == 80 and alone.measured.holdout_loss > 1 and alone.measured.bits_per_byte is None


def test_what_changes_nothing_or_can_not_be_measured_is_refused(
    run: graftkit.RunResult, tiny_model: Path, tmp_path: Path
) -> None:
    empty = {"path": str(written(tmp_path / "empty.jsonl", [{"question": "what?", "answer": ""}])), "empty": "skip"}
    recipe = run.folder.parent / "chat.yaml"
    recipe.touch()
    wrong: list[tuple[Any, Any, dict[str, Any], type[GraftkitError], str]] = [
        (tiny_model, None, {}, RequestError, "nothing says which records to evaluate on"),
        ("nowhere", None, {}, RequestError, "nowhere"),
        ([], None, {}, RequestError, "no model is named"),
        (7, None, {}, RequestError, "of the type int"),
        (run.folder, None, {"overrides": ["adapter.rank=3"]}, RecipeError, "'adapter.rank' changes nothing"),
        (run.folder, None, {"overrides": ["training.epochs=3"]}, RecipeError, "changes nothing of an evaluation\nWhat"),
        (run.folder, None, {"overrides": ["evaluation.metric=x"]}, RecipeError, "mean 'evaluation.metrics'?"),
        (recipe, "x", {}, RequestError, "name the run that it made, such as runs/chat; .* --recipe"),
        (run.folder.parent, "x", {}, RequestError, "no config.json\\nName one of what lies in it: run."),
        (run.folder / "exports", "x", {}, RequestError, "Name one of what lies in it: merged, peft."),
        (run.folder, "x", {"overrides": ["data.holdout=0.5"]}, RecipeError, "says which records, and --data does"),
        (run.folder, None, {"overrides": ["data.holdout=0"]}, DataError, "no record is held out"),
        (tiny_model, empty, {}, DataError, "empty.jsonl: all records are left out .empty: skip."),
        (run.folder, None, {"overrides": ["training.device=xpu"]}, RecipeError, "(?s)'xpu' can't be used here.*=auto"),
        (run.folder, None, {"overrides": ["objective=dpo"]}, DataError, "learns from pairs"),
        (run.folder, None, {"on": AdapterBase(quantizer="int8")}, RequestError, "none is evaluated"),
        (run.folder, "nowhere.jsonl", {}, DataError, "nowhere.jsonl"),
        ([run.folder, run.folder / "nothing"], None, {}, RequestError, "no such folder"),
        ([run.folder, run.folder / "metrics.jsonl"], None, {}, RequestError, "A file of records is no model"),
    ]
    for sources, records, options, error, message in wrong:
        with pytest.raises(error, match=message):
            graftkit.evaluate(sources, records, **options)


def test_an_objective_that_compares_with_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"say {n}: ", "chosen": f"{n}!", "rejected": "no?"} for n in range(8)]
    path = written(tmp_path / "pairs.jsonl", pairs)
    with pytest.raises(RequestError, match="the objective dpo compares a model with .*\n.* --set objective=simpo"):
        graftkit.evaluate(tiny_model, path, overrides=["objective=dpo"])
    [found] = graftkit.evaluate(tiny_model, path, overrides=["objective=simpo"])
    assert {"accuracy", "margin"} <= found.measured.metrics.keys()
    metric = "evaluation.metrics={use: contains, name: accuracy}"
    done = asked(tiny_model, "--data", path, "--answers", 2, "--set", "objective=simpo", "--set", metric)
    assert done.exit_code == 0, done.output
    shown = done.stdout.splitlines()[0]
    assert "  accuracy  " in shown and shown.endswith("  accuracy (answers)"), "a metric may be called as a measure"


def test_its_events_tell_of_each_model_and_it_stops_when_asked(run: graftkit.RunResult, tiny_model: Path) -> None:
    events: list[Event] = []
    graftkit.evaluate([run.folder, tiny_model], on_event=events.append)
    stages = [event.stage for event in events if isinstance(event, StageFinished)]
    each = [f"{source}: {name}" for source in (run.folder, tiny_model) for name in ("model", "records", "evaluation")]
    assert stages == ["records", *each]
    assert {event.what for event in events if isinstance(event, Progress)} == {"records", "passes", "tokens"}
    cancel = graftkit.CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, Progress):
            cancel.cancel()

    with pytest.raises(Cancelled):
        graftkit.evaluate(run.folder, on_event=stop, cancel=cancel)


def test_the_command_prints_a_row_a_model_and_wrong_answers(run: graftkit.RunResult, tiny_model: Path) -> None:
    done = asked(run.folder, tiny_model, "--wrong", "1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["loss", "bits", "per", "byte", "contains", "exact-match"]
    assert run.after is not None
    assert lines[1].split()[:2] == [str(run.folder), f"{run.after.holdout_loss:.4f}"]
    assert lines[3].startswith("6 records, ") and lines[3].endswith("; 4 answers"), "once, as both have as many"
    assert done.stdout.count("  expected  ") == 1
    [found] = json.loads(asked(run.folder, "--json", "--answers", "2").stdout)["models"]
    assert found["source"] == str(run.folder) and len(found["answers"]) == 2
    assert found["holdout_loss"] == run.after.holdout_loss
