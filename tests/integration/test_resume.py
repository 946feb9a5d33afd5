"""Stopping anywhere and resuming gives the same run, bit for bit, as never stopping."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit import hookimpl
from graftkit.errors import Cancelled, FolderError, GraftkitError, HookError, RecipeError, RequestError, RunError
from graftkit.flow.answering.reload import reload
from graftkit.flow.events import Event, Notice, Progress, StageStarted, StepFinished
from graftkit.flow.state.resume import find_run
from graftkit.training.checkpoint import latest_checkpoint
from safetensors.torch import load_file, save_file

ADAPTER = "adapter/adapter.safetensors"


@pytest.fixture
def recipe(make_recipe: Any) -> dict[str, Any]:
    training = {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu", "checkpoint_every": 2}
    adapter = {"use": "lora", "rank": 4, "dropout": 0.2}
    found: dict[str, Any] = make_recipe(quantizer="nf4", training=training, adapter=adapter)
    return found


@pytest.fixture
def expected(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return facts_of(graftkit.run(recipe, out=tmp_path / "never-stopped"))


def facts_of(result: graftkit.RunResult) -> dict[str, Any]:
    """What must be equal: the adapter's bytes, the losses, what was measured."""
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return {"adapter": result.manifest["artifacts"][ADAPTER], "steps": steps, "metrics": result.metrics}


def stop_at(recipe: dict[str, Any], out: Path, when: Any, **options: Any) -> None:
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if when(event):
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel, **options)


def before_loading(event: Event) -> bool:
    return isinstance(event, StageStarted) and event.stage == "base model"


def after_step(number: int) -> Any:
    return lambda event: isinstance(event, StepFinished) and event.step.step == number


def copied_after(number: int, out: Path, copy: Path) -> Any:
    """Copies a run's folder after a step, as a kill would leave it."""
    return lambda event: shutil.copytree(out, copy) if after_step(number)(event) else None


STOPS = {
    "while weights are read": lambda event: isinstance(event, Progress) and event.what == "tensors" and event.done > 3,
    "before the first step": lambda event: isinstance(event, StageStarted) and event.stage == "training",
    "after a step": after_step(3),
    "after the last step": after_step(6),
    "in the last evaluation": lambda event: isinstance(event, StageStarted) and event.stage == "evaluation after",
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path, stop: str
) -> None:
    out = tmp_path / "stopped"
    stop_at(recipe, out, STOPS[stop])
    result = graftkit.run(recipe, out=out, resume=True)
    assert facts_of(result) == expected
    assert result.manifest["status"] == "finished" and "error" not in result.manifest
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000006"]  # to train it further


def test_a_run_may_be_stopped_again_and_again(recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    stop_at(recipe, out, after_step(1))
    stop_at(recipe, out, after_step(2), resume=True)
    stop_at(recipe, out, after_step(5), resume=True)
    result = graftkit.run(recipe, out=out, resume=True)
    assert facts_of(result) == expected and len(result.manifest["resumed"]) == 3


def test_after_a_hook_raised_the_run_goes_on(recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    class Bad:
        @hookimpl
        def graftkit_step_finished(self, step: Any) -> None:
            if step.step == 4:
                raise RuntimeError("boom")

    with pytest.raises(HookError, match="boom"):
        graftkit.run(recipe, out=tmp_path / "run", host=graftkit.PluginHost(plugins=[Bad()]))
    assert facts_of(graftkit.run(recipe, out=tmp_path / "run", resume=True)) == expected


def test_a_machine_that_died_goes_on_from_the_last_checkpoint(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    """A kill leaves a manifest that says running, metrics past the checkpoint, the last line torn."""
    out, killed = tmp_path / "run", tmp_path / "killed"
    graftkit.run(recipe, out=out, on_event=copied_after(5, out, killed))
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    assert json.loads((killed / "manifest.json").read_text())["status"] == "running"
    assert facts_of(graftkit.run(recipe, out=killed, resume=True)) == expected


def test_a_damaged_checkpoint_is_passed_over(recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    stop_at(recipe, out, after_step(4))
    found = latest_checkpoint(out / "checkpoints")
    assert found is not None and found[0] == 4
    state = found[1] / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-7] ^= 1
    state.write_bytes(data)
    (found[1] / "notes.txt").write_text("years of work")
    events: list[Event] = []
    assert facts_of(graftkit.run(recipe, out=out, resume=True, on_event=events.append)) == expected
    told = [event.message for event in events if isinstance(event, Notice)]
    assert "going on after step 2" in told and "checkpoints/step-00000004 is damaged and is not used" in told
    assert (found[1] / "notes.txt").read_text() == "years of work"


def test_checkpoints_that_are_passed_over_crowd_out_no_new_one(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    """Those of later steps were counted among the newest that are kept, so that each new one was deleted at once."""
    out = tmp_path / "run"
    recipe["training"]["keep_checkpoints"] = 1
    stop_at(recipe, out, after_step(4))
    for state in (out / "checkpoints").glob("*/state.safetensors"):
        state.write_bytes(b"")
    assert facts_of(graftkit.run(recipe, out=out, resume=True)) == expected
    found = latest_checkpoint(out / "checkpoints")
    assert found is not None and [*(out / "checkpoints").iterdir()] == [found[1]]


def test_what_another_run_has_trained_is_not_gone_on_with(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    """Checkpoints and adapter of another seed fit in every other respect; the kill has left no list of files."""
    out, other = tmp_path / "run", tmp_path / "other"
    result = graftkit.run(recipe, out=out, on_event=copied_after(5, out, tmp_path / "killed"))
    stop_at({**recipe, "training": {**recipe["training"], "seed": 7}}, other, after_step(4))
    shutil.rmtree(tmp_path / "killed" / "checkpoints")
    shutil.copytree(other / "checkpoints", tmp_path / "killed" / "checkpoints")
    stop_at(recipe, tmp_path / "killed", before_loading, resume=True)  # what lies there is not vouched for now
    again = graftkit.run(recipe, out=tmp_path / "killed", resume=True)
    assert facts_of(again) == expected
    told = "checkpoints/step-00000004 is not the one that the run wrote and is not used"
    assert told in again.manifest["notices"]
    shutil.copyfile(other / ADAPTER, out / ADAPTER)
    with pytest.raises(FolderError, match=r"adapter\.safetensors: it is not the file that was written"):
        graftkit.run({**recipe, "export": ["peft"]}, out=out, resume=True)
    last = max((out / "checkpoints").iterdir())
    for name in ("state.safetensors", "checkpoint.json"):
        shutil.copyfile(max((other / "checkpoints").iterdir()) / name, last / name)
    facts = json.loads((last / "checkpoint.json").read_text()) | {"step": result.manifest["exported"]["step"]}
    (last / "checkpoint.json").write_text(json.dumps(facts))
    more = {**recipe, "training": {**recipe["training"], "steps": 2 * facts["step"]}}
    with pytest.raises(FolderError, match="can't be trained further"):
        graftkit.run(more, out=out, resume=True)


def test_without_a_run_resuming_starts_one(recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert facts_of(graftkit.run(recipe, out=tmp_path / "new", resume=True)) == expected


def test_another_recipe_or_other_records_are_refused_and_nothing_is_lost(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_at(recipe, out, after_step(3))
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.safetensors")}
    with pytest.raises(RequestError, match="learning_rate was 0.01 and is 0.02"):
        graftkit.run(recipe, out=out, resume=True, overrides=["training.learning_rate=0.02"])
    records = Path(recipe["data"]["train"])
    records.write_text(records.read_text() + records.read_text().partition("\n")[0] + "\n")
    with pytest.raises(RequestError, match="records have changed"):
        graftkit.run(recipe, out=out, resume=True)
    after = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.safetensors")}
    assert all(after[name] == data for name, data in before.items() if name.parts[0] != "tokens")


def test_a_finished_run_is_not_resumed(recipe: dict[str, Any], tmp_path: Path) -> None:
    graftkit.run(recipe, out=tmp_path / "run")
    with pytest.raises(FolderError, match="has finished"):
        graftkit.run(recipe, out=tmp_path / "run", resume=True)


def test_exports_that_failed_are_made_again_without_training_again(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RunError("no")

    with monkeypatch.context() as patch:
        patch.setattr("graftkit_exporters.merged.MergedExporter.export", fail)
        with pytest.raises(RunError):
            graftkit.run({**recipe, "export": ["merged"]}, out=tmp_path / "run")
    events: list[Event] = []
    result = graftkit.run({**recipe, "export": ["merged"]}, out=tmp_path / "run", resume=True, on_event=events.append)
    assert not any(isinstance(event, StepFinished) for event in events)
    assert facts_of(result) == expected and result.manifest["exports"]["merged"]["proof"]["status"] == "proved"


def test_other_weights_are_refused_and_the_run_stays_as_it_was(recipe: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(recipe["model"], model)
    recipe = {**recipe, "model": str(model)}
    out = tmp_path / "run"
    stop_at(recipe, out, after_step(3))
    before = (out / "manifest.json").read_bytes()
    tensors = load_file(model / "model.safetensors")
    save_file({name: t * 1.3 for name, t in tensors.items()}, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"model\.safetensors is not the file that the adapter was trained on"):
        graftkit.run(recipe, out=out, resume=True)
    assert json.loads((out / "manifest.json").read_text()) == json.loads(before)
    with pytest.raises(RequestError, match="is not the file that the adapter was trained on"):
        reload(str(out))


def test_other_patterns_or_arguments_are_another_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Of several patterns that match, the first holds."""
    patterns = {"q_proj": 1.0, r"layers\.0\..*": 64.0}
    recipe["adapter"] = {"use": "lora", "rank": 4, "alpha_pattern": patterns}
    stop_at(recipe, tmp_path / "stopped", after_step(3))
    recipe["adapter"] = {**recipe["adapter"], "alpha_pattern": dict(reversed(patterns.items()))}
    with pytest.raises(RecipeError, match=r"another recipe: the order in adapter\.alpha_pattern was q_proj, layers"):
        graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    manifest = json.loads((tmp_path / "stopped" / "manifest.json").read_text())
    said = json.loads(json.dumps(manifest["recipe"]))
    del manifest["recipe"]["evaluation"]["batch_size"], manifest["recipe"]["data"]["train"][0]["unused"]
    (tmp_path / "stopped" / "manifest.json").write_text(json.dumps(manifest))
    assert find_run(tmp_path / "stopped", said), "keys that an earlier version did not know have their defaults"
    said["evaluation"]["batch_size"] += 1
    with pytest.raises(RecipeError, match=r"evaluation\.batch_size was \d+ and is"):
        find_run(tmp_path / "stopped", said)
    said["evaluation"]["batch_size"] -= 1
    said["data"]["template_arguments"] = {"enable_thinking": False}
    with pytest.raises(RecipeError, match=r"data\.template_arguments\.enable_thinking was None and is False"):
        find_run(tmp_path / "stopped", said)


def made_by(out: Path, **changed: Any) -> None:
    """Makes a stopped run one of another version."""
    manifest = json.loads((out / "manifest.json").read_text())
    manifest |= {key: value for key, value in changed.items() if key != "distribution"}
    if "distribution" in changed:
        manifest["providers"]["adapter"] |= {"distribution": "else-where", "version": changed["distribution"]}
    (out / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_of_another_version_is_told_before_its_recipe_is_blamed(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    stop_at(recipe, out, after_step(3))
    made_by(out, graftkit="0.0.7", recipe={**json.loads((out / "manifest.json").read_text())["recipe"], "gone": 1})
    before = json.loads((out / "manifest.json").read_text())
    with pytest.raises(RecipeError) as caught:
        graftkit.run(recipe, out=out, resume=True)
    message: str = caught.value.message
    assert message.startswith("the run was made by graftkit 0.0.7 (this is ") and message.count("made by") == 1
    assert "): the run was started with another recipe: gone was 1" in message
    assert caught.value.hint.startswith("Go on with the versions that made it, or start anew with overwrite=True.")
    with pytest.raises(RecipeError, match=r"made by graftkit 0\.0\.7 .*: unknown key 'adapter.rang'"):
        graftkit.run({**recipe, "adapter": {"use": "lora", "rang": 4}}, out=out, resume=True)
    assert json.loads((out / "manifest.json").read_text()) == before
    with pytest.raises(RecipeError) as caught:  # a new run is this version's
        graftkit.run({**recipe, "adapter": {"use": "lora", "rang": 4}}, out=tmp_path / "new", resume=True)
    assert caught.value.message.startswith("unknown key")


def test_a_provider_of_another_version_is_told_too(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    stop_at(recipe, out, after_step(3))
    made_by(out, distribution="1.2")
    recipe["adapter"] = {**recipe["adapter"], "rank": 5}
    with pytest.raises(RecipeError, match=r"the run was made by else-where 1\.2 \(this is not installed\): "):
        graftkit.run(recipe, out=out, resume=True)


def test_a_run_of_another_version_that_fits_goes_on_and_says_so(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    stop_at(recipe, out, after_step(3))
    made_by(out, graftkit="0.0.7", environment={"torch": "1.0"})
    result = graftkit.run(recipe, out=out, resume=True)
    assert facts_of(result) == expected
    (told,) = (
        notice for notice in result.manifest["notices"] if notice.startswith("the run was made by graftkit 0.0.7")
    )
    assert f"torch 1.0 (this is {version('torch')})" in told


def test_a_flipped_bit_in_the_metrics_blocks_nothing_and_is_named(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    """Every bit of a line: most leave no JSON, some another step, some a number that only the hash gives away."""
    out = tmp_path / "run"
    stop_at(recipe, out, STOPS["in the last evaluation"])
    whole = (out / "metrics.jsonl").read_bytes()
    start = whole.index(b"\n") + 1
    for place in (0, 1, 3, 9, 12, len(whole.splitlines()[1]), 1000):  # of line 2; its end; a digit of a later one
        shutil.copytree(out, tmp_path / f"bit-{place}")
        damaged = bytearray(whole)
        damaged[min(start + place, len(whole) - 1)] ^= 2
        (tmp_path / f"bit-{place}" / "metrics.jsonl").write_bytes(damaged)
        result = graftkit.run(recipe, out=tmp_path / f"bit-{place}", resume=True)
        told = [notice for notice in result.manifest["notices"] if "metrics.jsonl" in notice]
        assert result.manifest["status"] == "finished" and told, place
        assert facts_of(result)["adapter"] == expected["adapter"] and result.metrics == expected["metrics"]
        assert (result.folder / "report.html").exists()


def test_a_damaged_line_is_named_by_its_step_where_the_report_finds_it(recipe: dict[str, Any], tmp_path: Path) -> None:
    def damage(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "report":
            path = tmp_path / "run" / "metrics.jsonl"
            path.write_bytes(path.read_bytes().replace(b'{"step": 3,', b'{"step\xff: 3,'))

    result = graftkit.run(recipe, out=tmp_path / "run", on_event=damage)
    assert "metrics.jsonl is damaged: it has no line that can be read of step 3" in result.manifest["notices"]


def test_files_of_the_users_stay_when_a_run_goes_on(
    recipe: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_at({**recipe, "export": ["merged"]}, out, lambda event: getattr(event, "stage", "") == "proof of merged")
    mine = ["adapter/notes.txt", "tokenizer/a/notes.txt", "tokens/notes.txt", "exports/merged/README.md"]
    mine += ["checkpoints/notes.txt", "notes.txt"]
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("years of work")
    result = graftkit.run({**recipe, "export": ["merged"]}, out=out, resume=True)
    assert facts_of(result) == expected
    assert [(out / name).read_text() for name in mine] == ["years of work"] * len(mine)
    stays = "exports/merged/README.md is not as the run wrote it, and stays"
    assert any(stays in said for said in result.manifest["notices"])
    assert not set(mine) & result.manifest["artifacts"].keys()
    with pytest.raises(FolderError, match=r"besides what its run wrote it holds adapter/notes\.txt"):
        graftkit.run(recipe, out=out, overwrite=True)


def test_a_run_that_goes_on_and_is_killed_at_once_still_knows_what_it_was_started_with(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    out, killed = tmp_path / "run", tmp_path / "killed"
    stop_at(recipe, out, after_step(3))

    def copy_at_once(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "tokenizer":
            shutil.copytree(out, killed)

    graftkit.run(recipe, out=out, resume=True, on_event=copy_at_once)
    records = Path(recipe["data"]["train"])
    records.write_text(records.read_text() + records.read_text().partition("\n")[0] + "\n")
    with pytest.raises(RequestError, match="records have changed"):
        graftkit.run(recipe, out=killed, resume=True)


def test_a_link_in_place_of_the_checkpoints_is_refused_before_anything_is_computed(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_at(recipe, out, after_step(3))
    (out / "checkpoints").rename(tmp_path / "elsewhere")
    (out / "checkpoints").symlink_to(tmp_path / "elsewhere")
    events: list[Event] = []
    with pytest.raises(FolderError, match="checkpoints in it is a link"):
        graftkit.run(recipe, out=out, resume=True, on_event=events.append)
    assert not events and latest_checkpoint(tmp_path / "elsewhere") is not None


def test_a_damaged_adapter_is_told_in_words(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Of a run that was killed: the manifest has no hashes yet."""
    graftkit.run(recipe, out=tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    del manifest["artifacts"]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    facts = json.loads((tmp_path / "run" / "adapter" / "adapter.json").read_text())
    tensors = (tmp_path / "run" / ADAPTER).read_bytes()
    few = dict(list(load_file(tmp_path / "run" / ADAPTER).items())[1:])
    save_file(few, tmp_path / "few.safetensors")
    cases = {
        "adapter.json": [(b'{"st', "is damaged: it is no JSON"), (b"[]", "is damaged: it does not say 'targets'")],
        "adapter.safetensors": [
            (tensors[:100], "is damaged: .*header"),
            (tensors[:-8], "is damaged: "),
            (b"", "is damaged: "),
            (None, "is missing"),
            ((tmp_path / "few.safetensors").read_bytes(), "do not fit the model: 1 missing"),
        ],
    }
    cases["adapter.json"] += [
        (json.dumps({**facts, key: None}).encode(), f"is damaged: it does not say '{key}'")
        for key in ("targets", "tokenizer_fingerprint")
    ]
    for name, damages in cases.items():
        path = tmp_path / "run" / "adapter" / name
        whole = path.read_bytes()
        for content, said in damages:
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(GraftkitError, match=said) as caught:
                reload(str(tmp_path / "run"))
            assert "Error:" not in str(caught.value) or "header" in said
        path.write_bytes(whole)
    reload(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("generation_config.json", {"eos_token_id": [1, 5]}, "was started with the stop tokens"),
        ("tokenizer_config.json", {"eos_token": "!"}, "was started with the tokenizer"),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, "records would become other tokens"),
    ],
)
def test_a_base_model_whose_special_tokens_changed_is_refused(
    recipe: dict[str, Any], tmp_path: Path, name: str, changed: dict[str, Any], said: str
) -> None:
    """Neither the weights nor the ids of pieces say so: answers would end elsewhere, records be laid out otherwise."""
    model = Path(shutil.copytree(recipe["model"], tmp_path / "model"))
    own, out = {**recipe, "model": str(model)}, tmp_path / "run"
    stop_at(own, out, after_step(3))
    whole = (model / name).read_text()
    (model / name).write_text(json.dumps({**json.loads(whole), **changed}))
    with pytest.raises(RequestError, match=said):
        graftkit.run(own, out=out, resume=True)
    (model / name).write_text(whole)
    assert graftkit.run(own, out=out, resume=True).manifest["status"] == "finished"
