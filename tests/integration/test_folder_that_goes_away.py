"""A run whose folder is moved, deleted or replaced meanwhile ends in an error, and makes no second half of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import StorageError
from graftkit.flow.events import Event, StageFinished, StepFinished
from graftkit.report.run_manifest import RunManifest


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
