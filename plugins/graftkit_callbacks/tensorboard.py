"""One run's event file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graftkit import EvaluationInfo, RunInfo, StepInfo, hookimpl

from graftkit_callbacks.config import TensorBoardConfig
from graftkit_callbacks.figures import of_evaluation, of_step
from graftkit_callbacks.process import process_kept

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

__all__ = ["TensorBoard"]

_SECONDS = 1
"""How long events wait for the disk: of a run that is killed, those of steps that it does not take anew were lost."""


class TensorBoard:
    """Writes each step's and each evaluation's numbers as events, through tensorboardX."""

    def __init__(self, config: TensorBoardConfig) -> None:
        self._folder = config.folder
        self._open: SummaryWriter | None = None

    @hookimpl
    def graftkit_step_finished(self, run: RunInfo, step: StepInfo) -> None:
        """Writes the step's numbers."""
        self._write(run, of_step(step), step.step)

    @hookimpl
    def graftkit_evaluation_finished(self, run: RunInfo, evaluation: EvaluationInfo) -> None:
        """Writes the evaluation's numbers."""
        self._write(run, of_evaluation(evaluation), evaluation.step)

    @hookimpl
    def graftkit_run_finished(self) -> None:
        """Closes the event file, however the run ended."""
        if self._open is not None:
            self._open.close()

    def _write(self, run: RunInfo, numbers: Mapping[str, float], step: int) -> None:
        if self._open is None:
            with process_kept():
                from tensorboardX import SummaryWriter

            # A run that goes on from a checkpoint takes steps anew that lie in an earlier file: those are left out.
            self._open = SummaryWriter(str(run.folder / self._folder), purge_step=step, flush_secs=_SECONDS)
        for name, value in numbers.items():
            self._open.add_scalar(name, value, step)
