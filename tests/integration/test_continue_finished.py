"""A finished run gets another export, or is trained further, without any step taken twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.errors import Cancelled, ExportError, FolderError, RecipeError, RequestError, StorageError
from graftkit.flow.add_export import add_export
from graftkit.flow.events import Event, Notice, StageStarted, StepFinished
from graftkit.flow.folders.folder import claim_again
from graftkit.store import folders
from graftkit.store.file_hashes import sha256_of
from graftkit.training.schedule import learning_rate, warmup_steps

ADAPTER = "adapter/adapter.safetensors"


@pytest.fixture
def recipe(make_recipe: Any) -> dict[str, Any]:
    training = {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"}
    found: dict[str, Any] = make_recipe(training=training, export=["peft"], adapter={"use": "lora", "rank": 4})
    return found


@pytest.fixture
def finished(recipe: dict[str, Any], tmp_path: Path) -> graftkit.RunResult:
    return graftkit.run(recipe, out=tmp_path / "run")


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def further(recipe: dict[str, Any], folder: Path, steps: int, **options: Any) -> graftkit.RunResult:
    return graftkit.run(recipe, out=folder, resume=True, overrides=[f"training.steps={steps}"], **options)


def test_a_finished_run_is_trained_further_from_its_last_step(
    recipe: dict[str, Any], finished: graftkit.RunResult
) -> None:
    """Also where somebody has deleted an export, which is made anew."""
    before = steps_of(finished.folder)
    shutil.rmtree(finished.folder / "exports/peft")
    seen: list[Event] = []
    found = further(recipe, finished.folder, 10, on_event=seen.append)
    lines = steps_of(found.folder)
    assert lines[:6] == before and [line["step"] for line in lines] == list(range(1, 11))
    assert [event.step.step for event in seen if isinstance(event, StepFinished)] == [7, 8, 9, 10]
    for line in lines[6:]:
        rate = learning_rate(line["step"], 10, peak=1e-2, warmup=warmup_steps(10, 0.05), schedule="cosine")
        assert line["learning_rate"] == pytest.approx(rate)
    [told] = [notice for notice in found.manifest["notices"] if "schedule" in notice]
    assert f"the rate, {before[-1]['learning_rate']:.1e} in the last step, is {lines[6]['learning_rate']:.1e}" in told
    assert found.manifest["recipe"]["training"]["steps"] == 10 and found.manifest["status"] == "finished"
    [was] = found.manifest["continued"]
    assert (was["steps"], was["after"]) == (6, finished.metrics["after"])
    assert found.metrics["before"] == finished.metrics["before"] and found.metrics["after"] != finished.metrics["after"]
    assert found.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    assert [path.name for path in (found.folder / "exports").iterdir()] == ["peft"]
    again = further(recipe | {"export": []}, finished.folder, 12)
    assert [entry["steps"] for entry in again.manifest["continued"]] == [6, 10]
    [told] = [notice for notice in again.manifest["notices"] if "exports/peft" in notice]
    assert "with the weights of before these steps" in told and (found.folder / "exports/peft").is_dir()
    assert again.manifest["exports"] == {}


@pytest.mark.parametrize(
    "rate",
    [{"schedule": "constant", "warmup": 0.0}, {"schedule": "inverse_sqrt", "warmup_steps": 2}],
    ids=["constant", "inverse_sqrt"],
)
def test_where_the_rate_does_not_fall_by_their_number_more_steps_are_as_if_the_run_had_been_longer(
    recipe: dict[str, Any], rate: dict[str, Any], tmp_path: Path
) -> None:
    recipe["training"] |= rate
    recipe["export"] = []
    graftkit.run(recipe, out=tmp_path / "run")
    found = further(recipe, tmp_path / "run", 10)
    whole = graftkit.run(recipe, out=tmp_path / "whole", overrides=["training.steps=10"])
    assert found.manifest["artifacts"][ADAPTER] == whole.manifest["artifacts"][ADAPTER]
    assert not any("other weights" in notice for notice in found.manifest["notices"])


def test_a_longer_run_that_was_stopped_goes_on_and_keeps_the_old_exports_until_then(
    recipe: dict[str, Any], finished: graftkit.RunResult, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "other")
    expected = further(recipe, tmp_path / "other", 10)
    old = (finished.folder / "exports/peft/adapter_model.safetensors").read_bytes()
    cancel = graftkit.CancelToken()

    def stop(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage == "proof of peft":
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        further(recipe, finished.folder, 10, on_event=stop, cancel=cancel)
    assert (finished.folder / "exports/peft/adapter_model.safetensors").read_bytes() == old
    found = further(recipe, finished.folder, 10)
    assert found.manifest["artifacts"][ADAPTER] == expected.manifest["artifacts"][ADAPTER]
    new = (finished.folder / "exports/peft/adapter_model.safetensors").read_bytes()
    assert new != old and new == (tmp_path / "other/exports/peft/adapter_model.safetensors").read_bytes()
    assert [entry["steps"] for entry in found.manifest["continued"]] == [6]
    assert sorted(path.name for path in (found.folder / "exports").iterdir()) == ["peft"]


def test_an_export_that_is_not_proved_leaves_the_old_one(
    recipe: dict[str, Any], finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise ExportError("it computes something else")

    old = (finished.folder / "exports/peft/adapter_model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("graftkit.flow.exports.proof.prove", fail)
        with pytest.raises(ExportError):
            further(recipe, finished.folder, 10)
    assert (finished.folder / "exports/peft/adapter_model.safetensors").read_bytes() == old
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["status"] == "failed" and list(manifest["exports"]) == ["peft"]
    assert further(recipe, finished.folder, 10).manifest["status"] == "finished"


def test_a_wrong_export_is_told_where_it_was_asked_for(finished: graftkit.RunResult) -> None:
    for asked, told in (
        (("mergd",), "--to: no exporter is called 'mergd'\nDid you mean 'merged'"),
        (("merged", ["dtyp=bfloat16"]), "--set: unknown key 'dtyp'\nDid you mean 'dtype'"),
        (("merged", ["dtype=bf16"]), "--set: dtype: must be 'float32', 'bfloat16' or 'float16', not 'bf16'"),
        (("merged", ["name=a/b"]), "--set name: name: no folder can be called so: 'a/b'"),
    ):
        with pytest.raises(RequestError) as caught:
            add_export(finished.folder, *asked)
        assert str(caught.value).startswith(told)


def test_without_the_optimizers_state_more_steps_are_refused_and_an_export_is_not(
    recipe: dict[str, Any], finished: graftkit.RunResult
) -> None:
    shutil.rmtree(finished.folder / "checkpoints")
    with pytest.raises(FolderError, match="the optimizer's state after its 6 steps is not in checkpoints/"):
        further(recipe, finished.folder, 10)
    with pytest.raises(FolderError, match="the optimizer's state"):
        graftkit.run({**recipe, "training": {**recipe["training"], "steps": 10}}, out=finished.folder, resume=True)
    assert json.loads((finished.folder / "manifest.json").read_text())["status"] == "finished"
    weights, seen = finished.folder / "exports/peft/adapter_model.safetensors", list[Event]()
    whole = weights.read_bytes()
    add_export(finished.folder, "peft", on_event=seen.append)
    assert "export peft" not in [event.stage for event in seen if isinstance(event, StageStarted)], "it is there"
    weights.write_bytes(whole[:100])
    with pytest.raises(FolderError, match="adapter_model.safetensors is not as the run wrote it"):
        add_export(finished.folder, "peft")
    weights.unlink()
    found = add_export(finished.folder, "peft")
    assert weights.read_bytes() == whole and found.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    assert "exports/peft: its files are not those that were written: it is made anew" in found.manifest["notices"]


def test_fewer_steps_another_rate_or_nothing_new_are_refused(
    recipe: dict[str, Any], finished: graftkit.RunResult
) -> None:
    with pytest.raises(RecipeError, match="training.steps is 4, but the run in .* has finished after 6"):
        further(recipe, finished.folder, 4)
    with pytest.raises(RecipeError, match=r"learning_rate was 0\.01 and is 0\.02"):
        changed = ["training.steps=10", "training.learning_rate=0.02"]
        graftkit.run(recipe, out=finished.folder, resume=True, overrides=changed)
    with pytest.raises(FolderError, match="nothing to resume") as caught:
        graftkit.run(recipe, out=finished.folder, resume=True)
    assert "toolkit export" in caught.value.hint and "training.steps=12" in caught.value.hint


def test_fewer_epochs_are_refused_and_the_run_stays_as_it_finished(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe |= {"training": {"epochs": 2, "tokens_per_step": 256, "device": "cpu"}, "export": []}
    graftkit.run(recipe, out=tmp_path / "run")
    with pytest.raises(RecipeError, match="the recipe makes .* steps, but the run in .* has finished after"):
        graftkit.run(recipe, out=tmp_path / "run", resume=True, overrides=["training.epochs=1"])
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "finished"
    with pytest.raises(FolderError, match="nothing to resume") as caught:
        graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert "more epochs, such as --set training.epochs=4" in caught.value.hint, "steps beside epochs are refused"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(recipe))
    line = ["run", str(tmp_path / "job.yaml"), "--out", str(tmp_path / "run")]
    [*_, told] = CliRunner().invoke(cli, line).exception.__notes__  # type: ignore[union-attr]
    assert told.endswith(" --resume --set training.epochs=MORE")


def test_an_export_is_added_without_training(finished: graftkit.RunResult) -> None:
    """Also to a run of a version that did not know some keys of a recipe yet."""
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    del manifest["recipe"]["adapter"]["modules_to_save"], manifest["recipe"]["adapter"]["ensure_weight_tying"]
    (finished.folder / "manifest.json").write_text(json.dumps(manifest))
    adapter, peft = finished.manifest["artifacts"][ADAPTER], finished.folder / "exports/peft/graftkit.json"
    stamp = {path: path.stat().st_mtime_ns for path in (finished.folder / "exports/peft").iterdir()}
    seen: list[Event] = []
    found = add_export(finished.folder, "merged", ["dtype=bfloat16"], on_event=seen.append)
    assert not [event for event in seen if isinstance(event, StepFinished)]
    stages = [event.stage for event in seen if isinstance(event, StageStarted)]
    assert "proof of merged" in stages and "proof of peft" not in stages and "evaluation after" not in stages
    assert found.manifest["artifacts"][ADAPTER] == adapter and found.metrics == finished.metrics
    assert {path: path.stat().st_mtime_ns for path in (finished.folder / "exports/peft").iterdir()} == stamp, peft
    assert found.manifest["exports"]["merged"]["proof"]["status"] == "proved"
    assert found.manifest["exports"]["peft"] == finished.manifest["exports"]["peft"]
    assert found.manifest["recipe"]["export"][1]["dtype"] == "bfloat16"
    assert "nothing is trained: the run took its 6 steps before" in found.manifest["notices"]


def test_an_export_is_added_where_the_run_chose_its_numbers(recipe: dict[str, Any], tmp_path: Path) -> None:
    del recipe["data"]["max_length"]
    recipe |= {
        "training": {"steps": 2, "warmup_steps": 5, "device": "cpu"},
        "adapter": {"use": "qlora", "rank": 4},
        "export": [],
    }
    first = graftkit.run(recipe, out=tmp_path / "run")
    found = add_export(first.folder, "peft")
    assert found.manifest["chosen"] == first.manifest["chosen"] and list(found.exports) == ["peft"]
    assert any("rises in every one of 2 steps, and never falls" in told for told in first.manifest["notices"])


def test_an_export_of_a_run_that_is_not_finished_or_that_nobody_offers_is_refused(
    finished: graftkit.RunResult, tmp_path: Path
) -> None:
    with pytest.raises(FolderError, match="there is no run in it"):
        add_export(tmp_path / "nothing", "merged")
    with pytest.raises(graftkit.errors.ProviderError, match="onnxx"):
        add_export(finished.folder, "onnxx")
    path = finished.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    with pytest.raises(FolderError, match="has not finished"):
        add_export(finished.folder, "merged")


def test_an_export_that_fails_or_is_killed_leaves_the_run_finished(
    finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, seen = finished.folder / "manifest.json", set()
    before = manifest.read_bytes()

    def fail(*arguments: Any, **options: Any) -> Any:
        raise ExportError("it computes something else")

    with monkeypatch.context() as patch:
        patch.setattr("graftkit.flow.exports.proof.prove", fail)
        for options in ([], ["name=peft"]):  # a new one, and one in the place of another
            with pytest.raises(ExportError):
                add_export(finished.folder, "merged", options, on_event=lambda event: seen.add(manifest.read_bytes()))
    assert seen == {before} and manifest.read_bytes() == before
    for name, facts in finished.manifest["artifacts"].items():
        assert sha256_of(finished.folder / name) == facts["sha256"], name
    assert list(add_export(finished.folder, "merged").exports) == ["peft", "merged"]


def test_two_exports_at_the_same_time_do_not_forget_each_other(
    finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(folder: Path) -> Any:
        monkeypatch.undo()
        add_export(folder, "merged", ["name=first"])
        return claim_again(folder)

    monkeypatch.setattr("graftkit.flow.run.claim_again", late)
    with pytest.raises(FolderError, match="another command has changed the run in it meanwhile"):
        add_export(finished.folder, "merged", ["name=second"])
    assert list(add_export(finished.folder, "merged", ["name=second"]).exports) == ["peft", "first", "second"]


def test_notices_of_an_export_that_replaces_another_name_it(
    finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the folder that it is written to until it is proved."""
    missing = {"status": "not possible", "reason": "its library is not installed"}
    monkeypatch.setattr("graftkit.flow.exports.proof.prove", lambda *_, **__: missing)
    notices = add_export(finished.folder, "merged", ["name=peft"]).manifest["notices"]
    assert "the export peft could not be proved: its library is not installed" in notices
    assert not any("graftkit-replaced" in notice for notice in notices)


def test_an_export_tells_of_itself_and_not_again_of_its_run(
    finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has both."""
    missing = {"status": "not possible", "reason": "its library is not installed"}
    monkeypatch.setattr("graftkit.flow.exports.proof.prove", lambda *_, **__: missing)
    of_run, of_export = (
        finished.manifest["notices"],
        "the export merged could not be proved: its library is not installed",
    )
    assert of_run
    for _ in range(2):  # the second one replaces the first
        events: list[Event] = []
        found = add_export(finished.folder, "merged", on_event=events.append)
        told = [event.message for event in events if isinstance(event, Notice)]
        assert of_export in told and not {*of_run} & {*told}
        assert {*of_run, of_export} <= {*found.manifest["notices"]}


def test_what_the_user_edited_in_an_export_is_not_lost(
    recipe: dict[str, Any], finished: graftkit.RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model card stays; what a new export would replace is refused before any work, as a link in its place is.

    So it is where a run is stopped that has put it beside a new export already, and after other exports were added.
    """
    export = finished.folder / "exports" / "peft"
    card, settings = export / "README.md", export / "config.json"
    report = finished.folder / "report.html"
    for path in (card, report):
        path.write_text(path.read_text() + "my own notes\n")
    put = folders._put_in_place

    def refuse_last(new: Path, path: Path) -> None:
        if new.name.endswith("replaced.partial"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(new, path)

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr(folders, "_put_in_place", refuse_last)
        add_export(finished.folder, "merged", ["name=peft"], proof="later")
    found = add_export(finished.folder, "merged", ["name=peft"], proof="later")
    assert card.read_text().endswith("my own notes\n") and "exports/peft/README.md" not in found.manifest["artifacts"]
    assert report.read_text().endswith("my own notes\n") and "report.html" not in found.manifest["artifacts"]
    told = " ".join(found.manifest["notices"])
    assert all(
        f"{name} is not as the run wrote it, and stays" in told for name in ("exports/peft/README.md", "report.html")
    )
    edited = settings.read_text().replace("{", '{"mine": 1,', 1)
    settings.write_text(edited)
    add_export(finished.folder, "peft", ["name=other"], proof="later")
    for again in (lambda: add_export(finished.folder, "peft"), lambda: further(recipe, finished.folder, 10)):
        with pytest.raises(FolderError, match=r"exports/peft/config\.json is not as the run wrote it"):
            again()
    with pytest.raises(FolderError, match=r"it holds exports/peft/README\.md, exports/peft/config\.json, rep"):
        graftkit.run(recipe, out=finished.folder, overwrite=True)
    assert settings.read_text() == edited and card.read_text().endswith("my own notes\n")
    export.rename(finished.folder.parent / "elsewhere")
    export.symlink_to(finished.folder.parent / "elsewhere")
    with pytest.raises(FolderError, match="exports/peft is not as the run wrote it"):
        add_export(finished.folder, "peft")


def test_a_run_that_reads_what_it_would_replace_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    out, exports = tmp_path / "runs" / "x", tmp_path / "runs" / "x" / "exports"
    recipe |= {"export": ["peft", "merged"], "proof": "later"}
    recipe["training"]["steps"] = 1
    graftkit.run(recipe, out=out)
    before = sorted(out.rglob("*"))
    (tmp_path / "link").symlink_to(exports / "merged")
    shutil.copytree(exports / "merged", tmp_path / "linked weights", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "linked weights" / "model.safetensors").symlink_to(exports / "merged" / "model.safetensors")
    changes: dict[str, Any] = {
        "model.path": {"model": str(exports / "merged")},
        "model.path names .*link,": {"model": str(tmp_path / "link")},
        "model": {"model": str(tmp_path / "linked weights")},
        "adapter.from": {"adapter": {"from": str(exports / "peft")}},
        "objective.teacher": {"objective": {"use": "distill", "teacher": str(exports / "merged")}},
        "tokenizer.extend.corpus": {"tokenizer": {"extend": {"tokens": 4, "corpus": [str(out / "report.html")]}}},
    }
    for told, changed in changes.items():
        with pytest.raises(FolderError, match=f"{told}.* lies in the run that would be replaced"):
            graftkit.run({**recipe, **changed}, out=out, overwrite=True)
    assert sorted(out.rglob("*")) == before and [path.name for path in out.parent.iterdir()] == ["x"]
