"""What every callback promises."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from graftkit.host.hooks import Hooks
from graftkit.host.lifecycle import (
    CheckpointInfo,
    EvaluationInfo,
    ExportInfo,
    RunInfo,
    RunStatus,
    StageInfo,
    StepInfo,
)
from graftkit.host.records import PluginRecord
from graftkit.interfaces.report_section import ReportSection
from graftkit.testing.contracts.base import Contract

__all__ = ["CallbackContract"]

_RECIPE: Mapping[str, Any] = {
    "model": {"use": "", "path": "model"},
    "data": {"train": [{"path": "records.jsonl"}]},
    "adapter": {"use": "lora", "rank": 8},
    "training": {"steps": 3, "seed": 0},
    "evaluation": {"every": 2},
    "export": [{"use": "merged", "name": None}],
    "plugins": {"disable": []},
}
_METRICS: Mapping[str, Any] = {
    "before": {"holdout_loss": 2.5, "bits_per_byte": 1.25, "bytes": 100},
    "after": {"holdout_loss": 1.5, "bits_per_byte": 0.75, "bytes": 100, "scores": {"exact-match": 0.5}, "answers": 2},
}


class CallbackContract(Contract):
    """Takes it through runs that finish, fail at once, are stopped half-way, and go on side by side.

    Example:
        >>> class TestRunLog(CallbackContract):
        ...     provider = "run-log"
        ...     options = {"path": "runs.db"}

    Every run is given a new folder, `run.folder`. A relative path in a field of the type `RecipePath` starts in one
    that a test deletes at its end.
    """

    kind = "callback"
    steps: ClassVar[int] = 3

    def recipe_folder(self) -> Path:
        """Returns a temporary folder, which goes when the test has ended."""
        folder = Path(tempfile.mkdtemp(prefix="graftkit-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def test_it_implements_hooks_that_there_are(self) -> None:
        """A misspelt hook would never be called, and one argument too many never be given."""
        Hooks().add(self.make(), self._record(), "callback")

    def test_it_follows_a_run_to_its_end(self) -> None:
        """No hook raises, with what a run gives it, and what it changes in the process is nothing."""
        with self.run() as run:
            self._follow(run)
            assert not run.record.notices, f"it disturbs: {run.record.notices}"

    def test_a_run_that_fails_before_anything_is_loaded_is_one_too(self) -> None:
        """After `graftkit_run_started` comes `graftkit_run_finished`, with no stage and no step between."""
        with self.run() as run:
            run.call("graftkit_run_started")
            run.end("failed", {"kind": "ModelError", "message": "it is damaged", "where": "model", "hint": ""})

    def test_a_run_that_is_stopped_and_goes_on_is_one_run(self) -> None:
        """The one that goes on has the same id and folder, another object, and steps that begin later."""
        with self.run() as run:
            run.call("graftkit_run_started")
            run.step(1)
            run.end("interrupted", {"kind": "Cancelled", "message": "stopped", "where": "", "hint": ""})
            again = _Following(self, run.folder, run.record, run.id)
            again.call("graftkit_run_started")
            again.step(2)
            again.end("finished", None)

    def test_runs_side_by_side_share_nothing(self) -> None:
        """Two runs in one process, whose hooks are called in turn."""
        with self.run() as first, self.run() as second:
            for run in (first, second):
                run.call("graftkit_run_started")
            for step in range(1, self.steps + 1):
                for run in (second, first):
                    run.step(step)
            for run in (first, second):
                run.sections()
                run.end("finished", None)

    def _follow(self, run: _Following) -> None:
        run.call("graftkit_run_started")
        run.stage("corpus")
        run.call("graftkit_evaluation_finished", evaluation=EvaluationInfo("before", 0, 2.5, 1.25))
        for step in range(1, self.steps + 1):
            run.step(step)
            run.call("graftkit_evaluation_finished", evaluation=EvaluationInfo("training", step, 2.5 - step / 4))
        run.checkpoint(self.steps)
        run.stage("training")
        after = EvaluationInfo("after", self.steps, 1.5, 0.75, 2, {"exact-match": 0.5})
        run.call("graftkit_evaluation_finished", evaluation=after)
        export = ExportInfo("merged", "merged", run.folder / "exports" / "merged", {"status": "proved"})
        run.call("graftkit_export_finished", export=export)
        run.sections()
        run.end("finished", None)

    @contextmanager
    def run(self) -> Iterator[_Following]:
        """Yields a run in a folder of its own, with an object of the callback."""
        with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
            yield _Following(self, Path(folder), self._record(), f"{id(folder):032x}")

    def _record(self) -> PluginRecord:
        own = self.choice.registered.plugin
        return PluginRecord(own.name, own.distribution, own.version, own.value)


class _Following:
    """A run that one object of a callback follows.

    Args:
        contract: What makes it.
        folder: The run's folder.
        record: What becomes of it is kept here.
        id: The run's id.
    """

    def __init__(self, contract: CallbackContract, folder: Path, record: PluginRecord, id: str) -> None:
        self.folder, self.record, self.id = folder, record, id
        self._hooks = Hooks()
        self._hooks.add(contract.make(), record, "callback")

    def call(self, hook: str, status: RunStatus = "running", error: Any = None, **given: Any) -> list[Any]:
        """Calls a hook."""
        run = RunInfo(self.folder, _RECIPE, status, self.id, error, _METRICS if status == "finished" else {})
        return [found for _, found in self._hooks.broadcast(hook, run=run, **given)]

    def step(self, number: int) -> None:
        """Tells of a step of the optimizer."""
        self.call("graftkit_step_finished", step=StepInfo(number, 3, 2.5 / number, 64, 32, 0.25, 1e-3, 0.5))

    def stage(self, name: str) -> None:
        """Tells of a stage."""
        self.call("graftkit_stage_finished", stage=StageInfo(name, 0.5, {"examples": 40}))

    def checkpoint(self, step: int) -> None:
        """Tells of a checkpoint."""
        folder = self.folder / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        self.call("graftkit_checkpoint_written", checkpoint=CheckpointInfo(step, folder))

    def sections(self) -> None:
        """Asks for sections of the report."""
        for found in self.call("graftkit_report_sections"):
            sections = isinstance(found, list) and all(isinstance(each, ReportSection) for each in found)
            assert sections, f"graftkit_report_sections returned {found!r:.80}, not a list of ReportSection"

    def end(self, status: RunStatus, error: Any) -> None:
        """Tells that the run is over."""
        self.call("graftkit_run_finished", status=status, error=error)
