"""Distillation: the teacher is scored once, before the base model is loaded, and never loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from graftkit.cli.plan import command as plan_command
from graftkit.errors import Cancelled, GraftkitError, RequestError
from graftkit.flow.events import Event, Notice, Progress, StageStarted
from graftkit.flow.preparation import teacher as teacher_module
from graftkit.store.token_store import TokenStore
from graftkit.testing import tiny_model_folder
from graftkit.training.step_loss import TEACHER_IDS, TEACHER_LOGPS
from stopped_runs import run_until

MakeDistilled = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger model of another architecture, whose embedding has more rows."""
    shape = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 3, "vocab_size": 352}
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "teacher", seed=7, hidden_size=128, **shape)


@pytest.fixture
def distill(make_recipe: Any, teacher: Path) -> MakeDistilled:
    """Makes a recipe that learns from that teacher; fields of the objective and sections replace its own."""

    def make(fields: Any = None, **sections: Any) -> dict[str, Any]:
        found: dict[str, Any] = make_recipe(
            objective={"use": "distill", "teacher": str(teacher), "top_k": 16, **(fields or {})}, **sections
        )
        return found

    return make


def test_a_quantized_model_learns_from_a_teacher_and_its_exports_are_proved(
    distill: MakeDistilled, teacher: Path, tmp_path: Path
) -> None:
    """What is kept of the teacher is what transformers' own code gives, at the temperature."""
    from transformers import AutoModelForCausalLM

    events: list[Event] = []
    recipe = distill({"temperature": 2.0, "alpha": 1.0}, quantizer="nf4", export=["merged"])
    recipe["training"]["microbatch_tokens"] = "auto"
    result = graftkit.run(recipe, out=tmp_path / "run", on_event=events.append)
    before, after = result.before, result.after
    assert before is not None and after is not None
    assert after.holdout_loss < before.holdout_loss == pytest.approx(before.metrics["divergence"])
    assert after.bits_per_byte is None and after.metrics.keys() == {"divergence", "nll", "agreement"}
    assert result.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    forecast = [stage["stage"] for stage in result.manifest["memory"]["forecast"]["stages"]]
    assert forecast[:2] == ["teacher", "base model"], "what says auto is settled by both"
    assert stages.index("corpus") < stages.index("teacher") < stages.index("base model"), "never two models at once"
    assert set(result.manifest["teacher"]["files"]) == {"config.json", "model.safetensors"}
    (told,) = [event.message for event in events if isinstance(event, Notice) and event.stage == "teacher"]

    network = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    nll, kept, count = 0.0, 0.0, 0
    for example in (store := TokenStore.load(result.folder / "teacher" / "train.safetensors")):
        ids = torch.from_numpy(example.ids)
        with torch.no_grad():
            logits = network(input_ids=ids[None]).logits[0, :-1, :259]
        at = np.flatnonzero(example.loss_mask[1:])
        expected = (logits[at] / 2).log_softmax(1)
        found = torch.from_numpy(example.by_token[TEACHER_LOGPS][1:][at])
        torch.testing.assert_close(found, expected.topk(16, 1).values, atol=2e-5, rtol=0)
        chosen = torch.from_numpy(example.by_token[TEACHER_IDS][1:][at]).long()
        torch.testing.assert_close(found, expected.gather(1, chosen), atol=2e-5, rtol=0)
        nll -= float(logits[at].log_softmax(1).gather(1, ids[1:][at, None]).sum())
        kept, count = kept + float(found.exp().sum()), count + len(at)
    assert count == store.loss_tokens.sum()
    assert f"{nll / count:.4f} on the training records" in told
    assert "its 16 likeliest tokens have" in told
    assert not (result.folder / ".teacher.partial").exists()


def results_of(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    files = ["adapter/adapter.safetensors", "teacher/train.safetensors", "teacher/holdout.safetensors"]
    return [kept, *((folder / name).read_bytes() for name in files)]


def stop_at(done: int, recipe: Any, out: Path) -> None:
    """Stops a run once the teacher has said something of so many records."""
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and (event.stage, event.what) == ("teacher", "records") and event.done >= done:
            cancel.cancel()

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel)


def test_a_stopped_run_does_not_ask_the_teacher_again(
    distill: MakeDistilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the teacher is scored, and later, it gives the same bits as one that never stopped."""
    training = {"steps": 6, "tokens_per_step": 256, "microbatch_tokens": 128, "learning_rate": 1e-2, "device": "cpu"}
    adapter = {"use": "lora", "rank": 4, "dropout": 0.2}
    recipe = distill(training=training, adapter=adapter, evaluation={"every": 2})
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    out = tmp_path / "stopped"
    stop_at(20, recipe, out)
    scored: list[int] = []
    own = teacher_module.teacher_scores

    def counted(loss: Any, batch: Any, *more: Any) -> Any:
        scored.append(batch.tokens)
        return own(loss, batch, *more)

    monkeypatch.setattr(teacher_module, "teacher_scores", counted)
    run_until(3, recipe, out, resume=True)
    assert 0 < sum(scored) < len(TokenStore.load(out / "teacher" / "train.safetensors").ids)
    monkeypatch.setattr(teacher_module, "_load", None)
    again = graftkit.run(recipe, out=out, resume=True)
    assert results_of(again.folder) == results_of(whole.folder)


def test_what_was_damaged_is_asked_again_of_the_same_teacher(
    distill: MakeDistilled, teacher: Path, tmp_path: Path
) -> None:
    import shutil

    own = shutil.copytree(teacher, tmp_path / "own")
    recipe, out = distill({"teacher": str(own)}), tmp_path / "run"
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    run_until(3, recipe, out)
    path = out / "teacher" / "train.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    tiny_model_folder(own, seed=8)
    with pytest.raises(GraftkitError, match="is not the file that the run's teacher was"):
        graftkit.run(recipe, out=out, resume=True)
    shutil.copytree(teacher, own, dirs_exist_ok=True)
    assert results_of(graftkit.run(recipe, out=out, resume=True).folder) == results_of(whole.folder)


def other_tokenizer(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path.write_text(json.dumps(data))
    return folder


def encoder_folder(folder: Path) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    path.write_text(json.dumps(config))
    return folder


MISFITS: dict[str, tuple[Callable[[Path], dict[str, Any]], dict[str, Any], str]] = {
    "another vocabulary": (
        lambda folder: {"teacher": str(other_tokenizer(folder))},
        {},
        r"token 64 is 'a' of the model that learns, and 'b' of the teacher",
    ),
    "a new vocabulary": (lambda folder: {}, {"tokenizer": {"extend": {"tokens": 9}}}, "tokens of another vocabulary"),
    "a head": (lambda folder: {"teacher": str(encoder_folder(folder))}, {}, "a teacher is a language model"),
    "no teacher": (lambda folder: {"teacher": str(folder / "gone")}, {}, "gone"),
    "no quantizer": (lambda folder: {"teacher_quantizer": "nf3"}, {}, "nf3"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_teacher_that_does_not_fit_is_refused_before_any_work(
    distill: MakeDistilled, tmp_path: Path, name: str
) -> None:
    fields, sections, told = MISFITS[name]
    folder = tiny_model_folder(tmp_path / "teacher", num_hidden_layers=1)
    with pytest.raises(RequestError, match=told):
        graftkit.run(distill(fields(folder), **sections), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_a_shorter_context_is_refused(distill: MakeDistilled, chat_records: Path, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "teacher", num_hidden_layers=1, max_position_embeddings=32)
    with pytest.raises(RequestError, match=r"context is 32 tokens, and records have up to 64") as error:
        graftkit.plan(distill({"teacher": str(folder)}))
    assert "data.max_length to 32" in str(error.value)


def test_a_model_can_take_its_teachers_tokenizer(distill: MakeDistilled, teacher: Path, tmp_path: Path) -> None:
    """With another tokenizer of its own it can't learn from that teacher; with the teacher's it does."""
    student = other_tokenizer(tiny_model_folder(tmp_path / "student"))
    with pytest.raises(RequestError, match="the teacher has another vocabulary"):
        graftkit.plan(distill(model=str(student)))
    recipe = distill(model=str(student), tokenizer={"replace": str(teacher)})
    after = graftkit.run(recipe, out=tmp_path / "run").after
    assert after is not None and after.metrics["divergence"] > 0


def test_the_teachers_path_starts_at_the_recipe_and_plan_names_it(
    distill: MakeDistilled, teacher: Path, tmp_path: Path
) -> None:
    recipe = distill({"teacher": "./own"})
    (tmp_path / "own").symlink_to(teacher)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(plan_command, [str(path)])
    assert done.exit_code == 0, done.output
    assert f"teacher     {tmp_path / 'own'}: qwen3" in done.output
    found = json.loads(CliRunner().invoke(plan_command, [str(path), "--json"]).output)
    assert found["teacher"]["top_k"] == 16 and found["teacher"]["parameters"] > found["model"]["parameters"]
    stages = {stage["stage"]: stage for stage in found["memory"]["stages"]}
    assert stages["teacher"]["parts"]["weights"] > stages["adapter"]["parts"]["weights"]
    alone = json.loads(CliRunner().invoke(plan_command, [str(path), "--json", "--from-config"]).output)
    told = {stage["stage"]: stage for stage in alone["memory"]["stages"]}
    assert told["teacher"]["parts"]["weights"] == stages["teacher"]["parts"]["weights"]
    (tmp_path / "own").unlink()
    refused = CliRunner().invoke(plan_command, [str(path), "--from-config"])
    assert isinstance(refused.exception, RequestError) and "`objective.teacher` names" in str(refused.exception)
