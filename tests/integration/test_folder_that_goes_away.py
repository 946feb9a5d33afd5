"""A run whose folder is moved, deleted or replaced meanwhile ends in an error, and makes no second half of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import StorageError
from graftkit.flow.events import Event, StageFinished, StepFinished
from graftkit.report.run_manifest import RunManifest
from graftkit.training.checkpoint import keep_newest


def replaced(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "moved": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "deleted": shutil.rmtree,
    "replaced": replaced,
}


@pytest.mark.parametrize(
    ("how", "when"),
    [("moved", "tokenizer"), ("moved", "step 3"), ("deleted", "step 3"), ("replaced", "step 3"), ("moved", "training")],
)
def test_nothing_is_written_where_the_folder_was(make_recipe: Any, tmp_path: Path, how: str, when: str) -> None:
    run = tmp_path / "run"

    def on_event(event: Event) -> None:
        stage = event.stage if isinstance(event, StageFinished) else ""
        step = f"step {event.step.step}" if isinstance(event, StepFinished) else ""
        if when in (stage, step):
            CHANGES[how](run)

    with pytest.raises(StorageError, match="moved, deleted or replaced while the run went on"):
        graftkit.run(make_recipe(), out=run, on_event=on_event)
    assert not run.exists() or not list(run.iterdir())
    if how != "deleted":
        manifest = RunManifest.read(tmp_path / "elsewhere")
        assert manifest is not None and manifest.status == "running"
        assert graftkit.run(make_recipe(), out=tmp_path / "elsewhere", resume=True).after is not None


def test_nothing_goes_through_a_link_that_comes_in_the_place_of_a_folder(make_recipe: Any, tmp_path: Path) -> None:
    """The run went on in silence: it wrote its checkpoints into somebody else's folder, and deleted those there."""
    own, mine = tmp_path / "run/checkpoints", tmp_path / "mine"
    (mine / "step-00000001").mkdir(parents=True)
    (mine / "step-00000001/state.safetensors").write_text("another run's")

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            own.rename(tmp_path / "moved")
            own.symlink_to(mine)

    recipe = make_recipe(training={"steps": 5, "tokens_per_step": 256, "checkpoint_every": 2})
    with pytest.raises(StorageError, match="a link has come in the place of checkpoints in it"):
        graftkit.run(recipe, out=tmp_path / "run", on_event=on_event)
    assert [path.name for path in mine.rglob("*")] == ["step-00000001", "state.safetensors"]
    keep_newest(own)
    assert (mine / "step-00000001/state.safetensors").read_text() == "another run's"


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def other_ids(path: Path) -> None:
    """Changes the last byte but the size: the highest of the last id's."""
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(bytes([1 + file.read(1)[0]]))


def another(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.replace(path)


@pytest.mark.parametrize(
    ("name", "when", "change"),
    [
        ("train", 1, truncated),
        ("train", 3, other_ids),
        ("train", 3, Path.unlink),
        ("train", 5, another),
        ("holdout", 3, truncated),
    ],
)
def test_tokens_that_change_are_not_trained_on(
    make_recipe: Any, tmp_path: Path, name: str, when: int, change: Callable[[Path], None]
) -> None:
    """Half of a file gave a division by zero, and other ids were trained on without a word."""
    path, lost = tmp_path / f"run/tokens/{name}.safetensors", []

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == when and not lost:
            lost.append(path.read_bytes())
            change(path)

    recipe = make_recipe(training={"steps": 5, "tokens_per_step": 256, "checkpoint_every": 2})
    with pytest.raises(StorageError, match="changed, replaced or deleted while the run read it") as caught:
        graftkit.run(recipe, out=tmp_path / "run", on_event=on_event)
    assert caught.value.where == str(path)
    undisturbed = graftkit.run(recipe, out=tmp_path / "undisturbed")
    resumed = graftkit.run(recipe, out=tmp_path / "run", resume=True)
    assert resumed.after == undisturbed.after
    assert path.read_bytes() == lost[0]


@pytest.mark.parametrize("change", ["delete", "replace"])
def test_metrics_that_go_away_are_missed(make_recipe: Any, tmp_path: Path, change: str) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == 2:
            (tmp_path / "run/metrics.jsonl").unlink()
            if change == "replace":
                (tmp_path / "run/metrics.jsonl").write_text("")

    with pytest.raises(StorageError) as caught:
        graftkit.run(make_recipe(), out=tmp_path / "run", on_event=on_event)
    assert caught.value.where.endswith("metrics.jsonl")
