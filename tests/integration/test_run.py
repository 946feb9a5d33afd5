"""A whole run on a tiny model: what it leaves, what it tells, how it stops."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit import hookimpl
from graftkit.errors import Cancelled, FolderError, HookError, RequestError, RunError, StorageError
from graftkit.flow.answering.reload import reload
from graftkit.flow.events import Event, Notice, StageFinished, StepFinished
from graftkit.flow.folders.own_files import others_files
from graftkit.report.run_manifest import RunManifest
from graftkit.store.file_hashes import facts_of
from graftkit.training.step_loss import StepScore


def manifest_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return data


@pytest.fixture
def finished(make_recipe: Any, tmp_path: Path) -> graftkit.RunResult:
    return graftkit.run(
        make_recipe(export=["peft"], evaluation={"answers": 3, "max_new_tokens": 4}), out=tmp_path / "run"
    )


def test_every_artifact_is_listed_with_its_hash(finished: graftkit.RunResult) -> None:
    listed = manifest_of(finished.folder)["artifacts"]
    there = {p.relative_to(finished.folder).as_posix() for p in finished.folder.rglob("*") if p.is_file()}
    assert listed.keys() == there - {"manifest.json"}
    for name, facts in listed.items():
        data = (finished.folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_the_folder_has_its_parts(finished: graftkit.RunResult) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"manifest.json", "tokenizer", "tokens", "adapter", "exports", "metrics.jsonl", "report.html"} <= names
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    keys = {"step", "loss", "tokens", "loss_tokens", "seconds", "learning_rate", "gradient_norm"}
    assert all(line.keys() == keys for line in lines)
    page = (finished.folder / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_the_manifest_says_what_was_done(finished: graftkit.RunResult) -> None:
    manifest = manifest_of(finished.folder)
    assert manifest["status"] == "finished" and manifest["progress"] is None and "error" not in manifest
    assert manifest["recipe"]["adapter"]["alpha"] == 32.0, "defaults are written out"
    assert manifest["providers"]["adapter"]["distribution"] == "graftkit"
    assert manifest["metrics"]["before"].keys() == manifest["metrics"]["after"].keys()
    assert manifest["parameters"]["trainable"] == sum(4 * (a + b) for a, b in SHAPES) * 2
    (adapter,) = (stage for stage in manifest["stages"] if stage["name"] == "adapter")
    assert manifest["forecast"] == {
        "adapter_parameters": adapter["trainable"],
        "frozen_linear_bytes": adapter["frozen_linear_bytes"],
    }
    assert len(manifest["tokenizer"]["fingerprint"]) == 64
    assert all(len(sha) == 64 for sha in manifest["model"]["files"].values())


SHAPES = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]


def test_no_secret_of_the_environment_reaches_the_folder(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_token_value")
    result = graftkit.run(make_recipe(export=["merged"]), out=tmp_path / "run")
    assert not any(b"hf_secret" in path.read_bytes() for path in result.folder.rglob("*") if path.is_file())


def test_the_same_recipe_gives_the_same_adapter_bit_for_bit(make_recipe: Any, tmp_path: Path) -> None:
    hashes = [
        graftkit.run(make_recipe(quantizer="nf4"), out=tmp_path / name).manifest["artifacts"][
            "adapter/adapter.safetensors"
        ]
        for name in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


def test_a_program_hears_of_everything_and_nothing_is_printed(
    make_recipe: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    graftkit.run(make_recipe(), out=tmp_path / "run", on_event=events.append)
    assert sum(isinstance(event, StepFinished) for event in events) == 6
    stages = [event.stage for event in events if isinstance(event, StageFinished)]
    assert stages == [
        "tokenizer",
        "model check",
        "corpus",
        "base model",
        "adapter",
        "evaluation before",
        "training",
        "evaluation after",
        "report",
    ]
    assert capfd.readouterr() == ("", "")


def test_what_became_of_long_records_is_told(make_recipe: Any, tmp_path: Path, chat_records: Path) -> None:
    long = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y" * 90}]}
    lost = {"messages": [{"role": "user", "content": "x" * 90}, {"role": "assistant", "content": "y"}]}
    with chat_records.open("a") as file:
        file.write(json.dumps(long) + "\n" + json.dumps(lost) + "\n")
    events: list[Event] = []
    recipe = make_recipe()
    recipe["data"] |= {"holdout": 0.0, "overflow": "truncate"}
    result = graftkit.run(recipe, out=tmp_path / "run", on_event=events.append)
    told = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "2 of 62 records are longer than 64 tokens" in told and "1 of 62 records have nothing left to learn" in told
    assert "no record is held out" in told and all(notice in told for notice in result.manifest["notices"])


def test_another_run_is_never_overwritten_unasked(make_recipe: Any, finished: graftkit.RunResult) -> None:
    before = (finished.folder / "manifest.json").read_bytes()
    with pytest.raises(FolderError, match=r"holds a run \(finished\)"):
        graftkit.run(make_recipe(), out=finished.folder)
    assert (finished.folder / "manifest.json").read_bytes() == before


def test_a_wrong_request_puts_the_replaced_run_back(
    make_recipe: Any, finished: graftkit.RunResult, tmp_path: Path
) -> None:
    before = (finished.folder / "manifest.json").read_bytes()
    with pytest.raises(RequestError, match="can't be used here"):
        graftkit.run(make_recipe(training={"steps": 1, "device": "cuda:7"}), out=finished.folder, overwrite=True)
    assert (finished.folder / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_overwriting_leaves_the_new_run_alone(make_recipe: Any, finished: graftkit.RunResult, tmp_path: Path) -> None:
    graftkit.run(make_recipe(), out=finished.folder, overwrite=True)
    assert not (finished.folder / "exports").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_stopped_run_says_how_far_it_came_and_keeps_the_adapter(make_recipe: Any, tmp_path: Path) -> None:
    cancel = graftkit.CancelToken()

    def stop_after_three(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel("enough")

    with pytest.raises(Cancelled, match="enough"):
        graftkit.run(make_recipe(), out=tmp_path / "run", on_event=stop_after_three, cancel=cancel)
    manifest = manifest_of(tmp_path / "run")
    assert manifest["status"] == "interrupted"
    assert manifest["progress"] == {"stage": "training", "step": 3, "steps": 6}
    assert json.loads((tmp_path / "run/adapter/adapter.json").read_text())["step"] == 3
    assert "adapter/adapter.safetensors" in manifest["artifacts"]
    assert "".join(reload(str(tmp_path / "run")).stream("say 1", max_new_tokens=3)) is not None


@pytest.mark.parametrize("file", ["adapter.safetensors", "report.html", "model.safetensors"])
def test_a_full_disk_fails_the_run_with_one_message(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if file.partition(".")[0] in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full") as caught:
        graftkit.run(make_recipe(export=["merged"]), out=tmp_path / "run")
    assert caught.value.exit_code == 1
    manifest = manifest_of(tmp_path / "run")
    assert manifest["status"] == "failed" and manifest["error"]["kind"] == "StorageError"
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".partial")]


def test_lifecycle_hooks_are_called_in_order_and_one_that_raises_is_named(make_recipe: Any, tmp_path: Path) -> None:
    class Listener:
        calls: list[str] = []

        @hookimpl
        def graftkit_run_started(self, run: Any) -> None:
            self.calls.append(f"started {run.status}")

        @hookimpl
        def graftkit_step_finished(self, run: Any, step: Any) -> None:
            self.calls.append(f"step {step.step}")
            if step.step == 2 and run.folder.name == "bad":
                raise KeyError("boom")

        @hookimpl
        def graftkit_run_finished(self, run: Any) -> None:
            self.calls.append(run.status)

    host = graftkit.PluginHost(plugins=[Listener()])
    graftkit.run(make_recipe(), out=tmp_path / "good", host=host)
    assert Listener.calls == ["started running", *(f"step {n}" for n in range(1, 7)), "finished"]
    with pytest.raises(HookError, match="graftkit_step_finished raised KeyError: 'boom'") as caught:
        graftkit.run(make_recipe(), out=tmp_path / "bad", host=host)
    assert "Listener" in str(caught.value)
    assert Listener.calls[-1] == "failed" and manifest_of(tmp_path / "bad")["progress"]["step"] == 2


class Writing:
    """Writes as a run begins, in its steps, and once it is over."""

    listed: list[bool] = []

    @hookimpl
    def graftkit_run_started(self, run: Any) -> None:
        self._write(run, "started")

    @hookimpl
    def graftkit_step_finished(self, run: Any, step: Any) -> None:
        if step.step == 3:
            self.listed.append("told/step" in json.loads((run.folder / "manifest.json").read_text())["written"])
        self._write(run, "step")

    @hookimpl
    def graftkit_run_finished(self, run: Any) -> None:
        (run.folder / "told" / "step").unlink(missing_ok=True)
        self._write(run, "started")
        self._write(run, "over")

    def _write(self, run: Any, name: str) -> None:
        (run.folder / "told").mkdir(exist_ok=True)
        with (run.folder / "told" / name).open("a") as file:
            file.write(run.status)


def test_what_hooks_write_is_listed_at_once_and_once_the_run_is_over(make_recipe: Any, tmp_path: Path) -> None:
    """A run that was killed, and one whose last hook wrote something, can be overwritten."""
    folder, host = tmp_path / "run", graftkit.PluginHost(plugins=[Writing()])
    Writing.listed.clear()
    found = graftkit.run(make_recipe(), out=folder, host=host)
    assert Writing.listed == [True]
    assert found.manifest == manifest_of(folder)
    told = {name: facts for name, facts in found.manifest["artifacts"].items() if name.startswith("told/")}
    assert told == {f"told/{name}": facts_of(folder / "told" / name) for name in ("over", "started")}
    said = RunManifest.read(folder)
    assert said is not None and others_files(folder, said) == []


def test_what_hooks_write_last_and_can_not_be_listed_is_told(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("graftkit.flow.state.run_folder.facts_of", refuse)
    events: list[Event] = []
    host = graftkit.PluginHost(plugins=[Writing()])
    graftkit.run(make_recipe(), out=tmp_path / "run", host=host, on_event=events.append)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert told[-1].startswith("what hooks changed after the run is not in its manifest: [Errno 5] Input/output error")


def test_a_refused_run_takes_along_what_hooks_wrote(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Any) -> None:
        (run.folder / "mine").touch()
        raise RequestError("the model is refused")

    monkeypatch.setattr("graftkit.flow.preparation.check_model.check_model", refuse)
    events: list[Event] = []
    host = graftkit.PluginHost(plugins=[Writing()])
    with pytest.raises(RequestError, match="the model is refused"):
        graftkit.run(make_recipe(), out=tmp_path / "run", host=host, on_event=events.append)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]
    assert not [event for event in events if isinstance(event, Notice) and "hooks" in event.message]


@pytest.mark.parametrize("record", [{"prompt": "a", "completion": "b"}, {"text": "plain words"}])
def test_other_shapes_of_records_are_learnt_too(make_recipe: Any, tmp_path: Path, record: dict[str, str]) -> None:
    records = tmp_path / "other.jsonl"
    records.write_text("".join(json.dumps({k: f"{v}{n}" for k, v in record.items()}) + "\n" for n in range(20)))
    data = {"train": str(records), "max_length": 32}
    result = graftkit.run(make_recipe(data=data, evaluation={"answers": 2}), out=tmp_path / "run")
    assert result.metrics["after"]["holdout_loss"] < result.metrics["before"]["holdout_loss"]
    assert ("scores" in result.metrics["after"]) == ("prompt" in record)


def test_holdout_records_that_are_too_long_are_told_of(make_recipe: Any, tmp_path: Path) -> None:
    records = tmp_path / "held.jsonl"
    long = [{"prompt": "x" * 90, "completion": "y"}, {"prompt": "x", "completion": "y" * 90}]
    records.write_text("".join(json.dumps(record) + "\n" for record in long))
    recipe = make_recipe()
    recipe["data"]["holdout"] = str(records)
    notices = graftkit.run(recipe, out=tmp_path / "run").manifest["notices"]
    told = "2 of 2 holdout records are longer than 64 tokens and "
    assert f"{told}end with the last answer that fits: {records}:1, {records}:2" in notices
    assert "2 of 2 holdout records have nothing left to learn and are not used" in notices
    recipe["data"]["overflow"] = "truncate"
    notices = graftkit.run(recipe, out=tmp_path / "cut").manifest["notices"]
    assert f"{told}lose their end: {records}:1, {records}:2" in notices
    assert "1 of 2 holdout records have nothing left to learn and are not used" in notices


def test_a_held_out_loss_that_is_no_number_fails_the_run_in_words(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.flow.training.evaluate.holdout_loss", lambda *a, **k: StepScore(float("nan"), 1, 1))
    with pytest.raises(RunError, match="the holdout loss is nan"):
        graftkit.run(make_recipe(), out=tmp_path / "run")
    assert manifest_of(tmp_path / "run")["status"] == "failed"


def test_a_record_longer_than_the_models_context_is_not_asked_for(make_recipe: Any) -> None:
    with pytest.raises(RequestError, match=r"the model's context is 512 tokens\n.*\n?.*Set it to 512 at most"):
        graftkit.plan(make_recipe(), overrides=["data.max_length=600", "training.tokens_per_step=4096"])
    recipe = make_recipe(training={"tokens_per_step": 4096})
    del recipe["data"]["max_length"]
    assert graftkit.plan(recipe).encoder.max_length == 512


def test_what_is_loaded_again_computes_without_dropout(make_recipe: Any, tmp_path: Path) -> None:
    adapter = {"use": "lora", "rank": 4, "dropout": 0.5}
    found = graftkit.run(make_recipe(adapter=adapter, export=["peft", "merged"]), out=tmp_path / "run")
    ids, logits = torch.arange(3, 40)[None], []
    for folder in (found.folder, found.folder, found.folder / "exports" / "peft", found.folder / "exports" / "merged"):
        network = reload(str(folder)).network
        assert not any(module.training for module in network.modules())
        with torch.no_grad():
            logits.append(network(input_ids=ids).logits)
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    torch.testing.assert_close(logits[3], logits[0], rtol=1e-4, atol=1e-4)
