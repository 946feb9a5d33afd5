"""A run claims its folder without ever destroying what is in it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graftkit.cli.run import _telling_what_helps
from graftkit.errors import FolderError, StorageError
from graftkit.flow.folders import folder as folder_module
from graftkit.flow.folders.adapter_folder import read_adapter_folder
from graftkit.flow.folders.folder import ClaimedFolder, claim, claim_again, default_folder, locked_folder
from graftkit.flow.folders.own_files import LOCK
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.flow.planning.inputs_in_run import refuse_inputs_in
from graftkit.report.run_manifest import MANIFEST, RunManifest
from graftkit.testing import isolated_host

WEIGHTS = "adapter.safetensors"


def a_run(folder: Path, status: str = "finished") -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"graftkit": "0.1", "status": status}))
    (folder / "adapter").mkdir()
    (folder / "adapter" / WEIGHTS).write_text("old")
    return folder


def names(folder: Path) -> list[str]:
    """Everything below a folder but locks, which come and go."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != LOCK)


OLD_RUN = ["x", "x/adapter", f"x/adapter/{WEIGHTS}", f"x/{MANIFEST}"]


def refusal(folder: Path, *, overwrite: bool = False) -> str:
    with pytest.raises(FolderError) as caught:
        claim(folder, overwrite=overwrite)
    assert caught.value.where == str(folder) and caught.value.exit_code == 2 and "out=..." in caught.value.hint
    return str(caught.value)


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "runs" / "x", overwrite=False)
    assert (claimed.path, claimed.replaced) == (tmp_path / "runs" / "x", None)
    assert names(tmp_path) == ["runs", "runs/x"]


def test_a_folder_that_is_given_back_leaves_nothing(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "runs" / "a" / "x", overwrite=False)
    (claimed.path / "tokens").mkdir()
    (claimed.path / MANIFEST).write_text("{}")
    (claimed.path / VOCABULARY).write_text("{}")
    claimed.give_back()
    assert names(tmp_path) == []


def test_a_run_that_was_killed_before_it_listed_its_files_is_overwritten(tmp_path: Path) -> None:
    (a_run(tmp_path / "x", "running") / VOCABULARY).write_text("{}")
    claim(tmp_path / "x", overwrite=True).keep()
    assert names(tmp_path) == ["x"]


def test_giving_back_keeps_what_somebody_else_has_made_meanwhile(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "runs" / "x", overwrite=False)
    (tmp_path / "runs" / "y").mkdir()
    claimed.give_back()
    assert names(tmp_path) == ["runs", "runs/y"]


def test_an_empty_folder_is_taken_and_given_back_empty(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    claimed = claim(tmp_path / "x", overwrite=False)
    assert claimed.replaced is None and names(tmp_path) == ["x"]
    (claimed.path / "tokens").mkdir()
    claimed.give_back()
    assert names(tmp_path) == ["x"]


def test_an_empty_folder_behind_a_link_is_taken_and_given_back_empty(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "x").symlink_to("real")
    claimed = claim(tmp_path / "x", overwrite=False)
    (claimed.path / "tokens").mkdir()
    claimed.give_back()
    assert names(tmp_path) == ["real", "x"]


def test_another_run_is_refused_and_told_how_it_stands(tmp_path: Path) -> None:
    a_run(tmp_path / "x", "interrupted")
    assert "it holds a run (interrupted)" in refusal(tmp_path / "x")
    assert "overwrite=True" in refusal(tmp_path / "x")
    assert names(tmp_path) == OLD_RUN


def test_overwriting_moves_the_run_aside_until_the_new_one_has_finished(tmp_path: Path) -> None:
    a_run(tmp_path / "x").chmod(0o2700)
    claimed = claim(tmp_path / "x", overwrite=True)
    assert stat.S_IMODE(claimed.path.stat().st_mode) == 0o2700, "closed to others, as the one before"
    assert [path.name for path in claimed.path.iterdir()] == [LOCK]
    assert claimed.replaced is not None and claimed.replaced.parent.parent == tmp_path
    assert (claimed.replaced / "adapter" / WEIGHTS).read_text() == "old"
    (claimed.path / "new").write_text("new")
    claimed.keep()
    assert names(tmp_path) == ["x", "x/new"]
    claimed.keep()
    assert names(tmp_path) == ["x", "x/new"]


def test_a_run_that_is_given_back_restores_the_one_before(tmp_path: Path) -> None:
    claimed = claim(a_run(tmp_path / "x"), overwrite=True)
    (claimed.path / "metrics.jsonl").write_text("new")
    claimed.give_back()
    assert names(tmp_path) == OLD_RUN
    assert (tmp_path / "x" / "adapter" / WEIGHTS).read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", [None, "{}", "[]", "no JSON", '{"status": "finished"}', "[" * 100_000])
def test_files_that_are_no_run_are_never_replaced(tmp_path: Path, overwrite: bool, content: str | None) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("years of work")
    if content is not None:
        (tmp_path / "x" / MANIFEST).write_text(content)
    before = names(tmp_path)
    assert "it holds files that are no run" in refusal(tmp_path / "x", overwrite=overwrite)
    assert names(tmp_path) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert "it is a file" in refusal(tmp_path / "x", overwrite=True)
    assert "can't be written: Not a directory" in refusal(tmp_path / "x" / "y")
    assert names(tmp_path) == ["x"]


def test_a_path_that_can_be_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "it is a link to a folder that is not there" in refusal(tmp_path / "dangling")
    assert names(tmp_path) == ["dangling"]
    assert "File name too long" in refusal(tmp_path / ("a" * 300))


@pytest.mark.parametrize("failing", ["rename", "mkdir"])
def test_a_run_that_cannot_be_moved_aside_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    a_run(tmp_path / "x")
    original = getattr(Path, failing)

    def refuse_once(self: Path, *arguments: object, **named: object) -> object:
        monkeypatch.setattr(Path, failing, original)
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, failing, refuse_once)
    assert "Permission denied" in refusal(tmp_path / "x", overwrite=True)
    assert names(tmp_path) == OLD_RUN


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "x").mkdir()
    monkeypatch.setattr(os, "open", refuse)
    assert "can't be written: Read-only file system" in refusal(tmp_path / "x")
    with pytest.raises(FolderError, match="Read-only file system") as raised:
        claim_again(tmp_path / "x")
    assert "a copy of that folder" in raised.value.hint


def test_of_a_run_in_a_folder_that_the_system_refuses_no_command_is_told_that_it_refuses_too(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "x", "running")
    for cause, told in ((None, True), (OSError(errno.EACCES, "Permission denied"), False)):
        with pytest.raises(FolderError) as raised, _telling_what_helps(folder, "toolkit run"):
            raise FolderError("it is refused") from cause
        assert bool(getattr(raised.value, "__notes__", [])) == told


def test_what_somebody_else_put_into_the_folder_is_never_given_back(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "x", overwrite=False)
    (claimed.path / "tokens").mkdir()
    (claimed.path / "mine.txt").write_text("mine")
    claimed.give_back()
    assert names(tmp_path) == ["x", "x/mine.txt"]


MINE = (
    "notes.txt",
    "mine/y",
    "adapter/notes.txt",
    "adapter/adapter.safetensors.bak",
    "tokenizer/notes.txt",
    "adapter-from/notes.txt",
    "tokens/train.jsonl",
    "checkpoints/step-00000004/notes.txt",
    "checkpoints/best/state.safetensors",
    "exports/merged/README.md",
    "exports/mine.gguf",
)


@pytest.mark.parametrize("mine", MINE)
def test_a_run_with_somebodys_own_files_in_it_is_not_overwritten(tmp_path: Path, mine: str) -> None:
    folder = a_run(tmp_path / "x")
    list_files(folder, "tokenizer/tokenizer.json", "adapter-from/tokenizer.json", "exports/merged/model.safetensors")
    path = folder / mine
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("years of work")
    assert f"besides what its run wrote it holds {mine}" in refusal(tmp_path / "x", overwrite=True)
    assert path.read_text() == "years of work"


def list_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a run's")
    manifest = {"graftkit": "0.1", "status": "finished", "artifacts": {name: {} for name in names}}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_link_in_a_run_is_somebodys_own_and_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "records.jsonl").write_text("years of work")
    (a_run(tmp_path / "x") / "exports").mkdir()
    (tmp_path / "x" / "exports" / "merged").symlink_to(tmp_path / "corpus")
    assert "besides what its run wrote it holds exports/merged" in refusal(tmp_path / "x", overwrite=True)
    assert (tmp_path / "corpus" / "records.jsonl").read_text() == "years of work"


@pytest.mark.parametrize("moment", ["before the lock", "after the check"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_link_that_comes_in_a_runs_place_meanwhile_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool, moment: str
) -> None:
    """Neither is another run moved aside, nor is anything written where the link leads."""
    a_run(tmp_path / ("a" if linked else "x"))
    mine = a_run(tmp_path / "mine") / "thesis.txt"
    mine.write_text("years of work")
    if linked:
        (tmp_path / "x").symlink_to("a")
    name = "_lock" if moment == "before the lock" else "others_files"
    own = getattr(folder_module, name)

    def exchanged(*arguments: Any) -> Any:
        found = own(*arguments) if name == "others_files" else None
        monkeypatch.undo()
        (tmp_path / "x").unlink() if linked else (tmp_path / "x").rename(tmp_path / "b")
        (tmp_path / "x").symlink_to("mine")
        return found if name == "others_files" else own(*arguments)

    monkeypatch.setattr(folder_module, name, exchanged)
    with pytest.raises((FolderError, StorageError)):
        claimed = claim(tmp_path / "x", overwrite=True)
        try:
            claimed.check()
        finally:
            claimed.give_back()
    assert names(tmp_path / "mine") == ["adapter", f"adapter/{WEIGHTS}", MANIFEST, "thesis.txt"]


def test_what_comes_into_the_run_that_is_replaced_meanwhile_stays(tmp_path: Path) -> None:
    claimed = claim(a_run(tmp_path / "x"), overwrite=True)
    assert claimed.replaced is not None
    (claimed.replaced / "adapter" / "notes.txt").write_text("years of work")
    kept = claimed.replaced / "adapter" / "notes.txt"
    claimed.keep()
    assert kept.read_text() == "years of work" and sorted(p.name for p in kept.parent.iterdir()) == ["notes.txt"]


def test_a_run_that_was_killed_after_some_stages_is_overwritten_with_what_it_had_written(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "x", "running")
    written = ["tokenizer/tokenizer.json", "tensorboard/events", "exports/merged/config.json"]
    list_files(folder, *written)
    (folder / MANIFEST).write_text(json.dumps({"graftkit": "0.1", "status": "running", "written": written}))
    (folder / "checkpoints" / ".step-00000002.graftkit-abcd_123.partial").mkdir(parents=True)
    (folder / "checkpoints" / ".step-00000002.graftkit-abcd_123.partial" / "state.safetensors").write_text("half")
    claim(folder, overwrite=True).keep()
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("name", [".lock", ".recipe.yaml.20261128.old", ".manifest.json.20261128.partial"])
def test_a_file_whose_name_others_use_is_nobody_s_left_over(tmp_path: Path, name: str) -> None:
    """uv and datasets make files called .lock, and people call a copy by its date."""
    (tmp_path / name).write_text("mine")
    assert "it holds files that are no run" in refusal(tmp_path)
    with locked_folder(tmp_path):
        pass
    claimed = claim(tmp_path / "x", overwrite=False)
    (tmp_path / "x" / name).write_text("mine, too")
    claimed.give_back()
    assert [(tmp_path / place).read_text() for place in (name, f"x/{name}")] == ["mine", "mine, too"]


@pytest.mark.parametrize("left", [[], [LOCK], [LOCK, ".manifest.json.graftkit-abcd_123.partial"]])
def test_a_folder_of_a_run_that_was_killed_before_its_first_manifest_is_taken(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "x").mkdir()
    for name in left:
        (tmp_path / "x" / name).write_text('{"gra')
    claimed = claim(tmp_path / "x", overwrite=False)
    assert [path.name for path in claimed.path.iterdir()] == [LOCK]


@pytest.mark.parametrize("left", [None, [], [LOCK, ".manifest.json.graftkit-abcd_123.partial"]])
def test_a_run_that_was_killed_before_it_replaced_another_leaves_that_one(
    tmp_path: Path, left: list[str] | None
) -> None:
    """A kill between the move of the older run and the newer one's first manifest."""
    claimed = claim(a_run(tmp_path / "x"), overwrite=True)
    claimed.release()
    for name in left or []:
        (tmp_path / "x" / name).write_text("")
    if left is None:
        (tmp_path / "x").rmdir()
    assert "it holds a run (finished)" in refusal(tmp_path / "x")
    assert names(tmp_path) == OLD_RUN
    claim(tmp_path / "x", overwrite=True).keep()
    assert names(tmp_path) == ["x"]


def test_a_run_that_goes_on_and_finishes_removes_what_it_had_replaced_before_it_was_killed(tmp_path: Path) -> None:
    a_run(tmp_path / "x.y")
    claim(tmp_path / "x.y", overwrite=True).release()  # another run, whose name begins as this one's
    first = claim(a_run(tmp_path / "x"), overwrite=True)
    (first.path / MANIFEST).write_text(json.dumps({"graftkit": "0.1", "status": "running"}))
    first.release()
    claim_again(tmp_path / "x").keep()
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(".replaced")]
    assert len(left) == 1 and left[0].startswith(".x.y.")


def test_a_run_that_goes_on_removes_what_a_kill_has_left(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "x", "running")
    before = names(tmp_path)
    for name in (
        ".adapter.graftkit-abcd_123.partial",
        "exports/.merged.graftkit-abcd_123.partial",
        "exports/.merged.12.graftkit-abcd_123.partial",
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text("as large as a model")
    (folder / "checkpoints" / ".step-00000002.graftkit-abcd_123.old" / "step-00000002").mkdir(parents=True)
    (folder / ".manifest.json.graftkit-abcd_123.partial").write_text("{")
    (folder / ".tokens.partial").mkdir()
    claim_again(folder).release()
    swept = ["x/.tokens.partial", "x/checkpoints", "x/checkpoints/step-00000002", "x/exports"]
    assert names(tmp_path) == sorted([*before, *swept])


KEPT = ["checkpoints", "adapter", "exports", "tokens", "tokenizer", ".tokens.partial", "teacher", ".teacher.partial"]


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_where_a_run_keeps_one_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"graftkit": "0.1", "status": "interrupted"}))
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        (folder / name).symlink_to(tmp_path / "elsewhere")
    else:
        (folder / name).write_text("")
    with pytest.raises(FolderError, match=f"{name} in it is a {kind}, where a run keeps a folder") as caught:
        claim_again(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", ["checkpoints/step-00000002", ".tokens.partial/train", ".teacher.partial/train/ids", LOCK]
)
def test_a_link_that_a_run_would_write_through_is_refused(tmp_path: Path, name: str) -> None:
    """What it leads to is somebody else's: tokens were written over it, and another run's checkpoint was deleted."""
    folder, mine = a_run(tmp_path / "x", "interrupted"), tmp_path / "mine"
    mine.mkdir()
    (mine / "ids").write_text("years of work")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(mine / "ids" if name.endswith("ids") else mine / "new" if name == LOCK else mine)
    with pytest.raises(FolderError, match=f"{name} in it is a link") as caught:
        claim_again(folder)
    assert caught.value.hint and names(tmp_path / "mine") == ["ids"] and (mine / "ids").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", ["checkpoints/step-00000002/checkpoint.json", "metrics.jsonl", "tokens/train.safetensors"]
)
def test_a_folder_where_a_run_keeps_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Its own file would take that place, with what somebody has put into it."""
    mine = a_run(tmp_path / "x", "interrupted") / name / "notes.txt"
    (tmp_path / "x" / name).unlink(missing_ok=True)
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(FolderError, match=f"{name} in it is a folder, where a run keeps a file") as caught:
        claim_again(tmp_path / "x")
    assert caught.value.hint and mine.read_text() == "years of work"


def test_what_a_killed_run_had_not_listed_yet_is_its_own(tmp_path: Path) -> None:
    """A start that was observed, what a teacher has said so far, an adapter's copy: each is written within a stage."""
    folder = a_run(tmp_path / "x", "running")
    written = ["start.safetensors", "reference.safetensors", "teacher/train.safetensors", ".teacher.partial/train/ids"]
    written += ["adapter-from/vocabulary.json", "adapter-from/tokenizer.json", "tokenizer/tokenizer.json"]
    for name in written:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    claim(folder, overwrite=True).keep()
    assert names(tmp_path) == ["x"]
    claimed = claim(tmp_path / "y", overwrite=False)
    for name in written:
        (claimed.path / name).parent.mkdir(parents=True, exist_ok=True)
        (claimed.path / name).write_text("")
    claimed.give_back()
    assert names(tmp_path) == ["x"]


def test_what_a_plugin_left_is_part_of_the_run(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "x")
    (folder / "tensorboard").mkdir()
    manifest = {"graftkit": "0.1", "status": "finished", "artifacts": {"tensorboard/events": {}}}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    claim(folder, overwrite=True).keep()
    assert names(tmp_path) == ["x"]


def test_what_a_file_may_be_besides_is_compared_where_it_can_be_read(tmp_path: Path) -> None:
    """A manifest that somebody has written may say that of any name, and a link lead to what reading refuses."""
    a_run(tmp_path / "x")
    facts = {"bytes": 0, "sha256": "0" * 64}
    said = json.loads((tmp_path / "x" / MANIFEST).read_text())
    names = ("report.html", "../x", "no\0name", "exports/peft/README.md", "adapter")
    said |= {
        "artifacts": {"report.html": {"bytes": 3, "sha256": "1" * 64}},
        "replacing": {name: [facts] for name in names},
    }
    (tmp_path / "x" / MANIFEST).write_text(json.dumps(said))
    (tmp_path / "x" / "report.html").symlink_to("/proc/self/mem")
    assert "besides what its run wrote it holds report.html" in refusal(tmp_path / "x", overwrite=True)


def test_a_long_text_of_a_recipe_is_not_taken_for_a_path(tmp_path: Path) -> None:
    recipe = {"data": {"template_arguments": {"note": "/a" * 300_000, "beside": str(tmp_path / "x")}}}
    others: Any = {"files": SimpleNamespace(files=()), "teacher": None, "origin": None, "datasets": ()}
    plan: Any = SimpleNamespace(bound=SimpleNamespace(resolved=lambda: recipe), **others)
    start = time.process_time()
    refuse_inputs_in(tmp_path / "x", plan)
    assert time.process_time() - start < 2
    (tmp_path / "x").mkdir()
    with pytest.raises(FolderError, match=r"data\.template_arguments\.beside names"):
        refuse_inputs_in(tmp_path / "x", plan)


@pytest.mark.parametrize("again", [lambda path: claim(path, overwrite=True), claim_again])
def test_one_run_at_a_time(tmp_path: Path, again: Callable[[Path], ClaimedFolder]) -> None:
    first = claim(tmp_path / "x", overwrite=False)
    with pytest.raises(FolderError, match="a run or an export is going on in it"):
        again(tmp_path / "x")
    (first.path / MANIFEST).write_text(json.dumps({"graftkit": "0.1", "status": "running"}))
    with pytest.raises(FolderError, match="a run or an export is going on in it"):
        again(tmp_path / "x")
    first.release()
    again(tmp_path / "x").release()


def test_a_folder_that_is_locked_is_nobody_elses_and_goes_where_it_stays_empty(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "x"):
        assert "a run or an export is going on in it" in refusal(tmp_path / "a" / "x")
    assert names(tmp_path) == []
    with pytest.raises(KeyError), locked_folder(tmp_path / "a" / "x"):
        (tmp_path / "a" / "x" / "kept").mkdir()
        raise KeyError
    assert names(tmp_path) == ["a", "a/x", "a/x/kept"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"), locked_folder(tmp_path / "file"):
        pass


def test_the_folder_that_one_stands_in_may_be_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claimed = claim(Path(), overwrite=False)
    (claimed.path / "tokens").mkdir()
    claimed.give_back()
    assert names(tmp_path) == []


def test_a_manifest_is_read_only_where_it_is_one(tmp_path: Path) -> None:
    assert RunManifest.read(tmp_path) is None
    found = RunManifest.read(a_run(tmp_path / "x"))
    assert found is not None and found.to_json() == {"graftkit": "0.1", "status": "finished"}


def test_a_run_without_a_folder_goes_below_runs() -> None:
    assert default_folder("quickstart") == Path("runs/quickstart")


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, flock, others = a_run(tmp_path / "x") / LOCK, fcntl.flock, []

    def late(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()  # one run lets go of it, and the next takes it
        others.append(claim_again(tmp_path / "x"))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FolderError, match="a run or an export is going on in it"):
        claim_again(tmp_path / "x")
    others[0].release()
    claim_again(tmp_path / "x").release()


def test_too_long_a_name_is_no_adapters_folder(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="there is no adapter in PEFT's format in it"):
        read_adapter_folder(tmp_path / ("x" * 300), isolated_host())


def test_a_run_in_an_adapters_place_is_told_what_to_name(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a run")
    with pytest.raises(FolderError) as caught:
        read_adapter_folder(run, isolated_host())
    assert f"toolkit export '{run}' --to peft" in caught.value.hint
    export = run / "exports" / "mine"
    export.mkdir(parents=True)
    (export / "adapter_config.json").touch()
    with pytest.raises(FolderError) as caught:
        read_adapter_folder(run, isolated_host())
    assert f"name that of its export, {export}." in caught.value.hint
