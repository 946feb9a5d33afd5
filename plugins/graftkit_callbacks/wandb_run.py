"""One run of Weights & Biases."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from graftkit import EvaluationInfo, ExportInfo, RunInfo, StepInfo, hookimpl
from graftkit.errors import RunError
from graftkit.interfaces.offline import offline_asked

from graftkit_callbacks.config import WandbConfig
from graftkit_callbacks.figures import of_evaluation, of_step
from graftkit_callbacks.process import process_kept

if TYPE_CHECKING:
    import wandb

__all__ = ["WandbRun"]

_SECONDS = 60.0
"""How long the end of a run waits for a server."""


class WandbRun:
    """Tells wandb a run's recipe, numbers and proofs. A run that is resumed goes on as the same one, by its id.

    wandb sends from a process of its own: no step waits for the network, and neither a server that doesn't answer nor
    the end of that process ends a run. The console's text, the program, its repository and reports of wandb's own
    errors are not sent.
    """

    def __init__(self, config: WandbConfig) -> None:
        self._config = config
        self._open: wandb.Run | None = None

    @hookimpl
    def graftkit_run_started(self, run: RunInfo) -> None:
        """Begins the run, or goes on with it.

        Raises:
            RunError: wandb refuses, or its server can't be reached.
        """
        with process_kept():
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            import wandb

            try:
                self._open = self._begin(run)
            except wandb.errors.Error as error:
                raise RunError(
                    f"wandb can't be told of the run: {error}",
                    hint="`wandb login` says who you are, once; with plugins.wandb.mode: offline nothing is sent.",
                ) from error

    @hookimpl
    def graftkit_step_finished(self, step: StepInfo) -> None:
        """Tells the step's numbers."""
        self._tell(lambda run: run.log(dict(of_step(step)), step=step.step))

    @hookimpl
    def graftkit_evaluation_finished(self, evaluation: EvaluationInfo) -> None:
        """Tells the evaluation's numbers."""
        self._tell(lambda run: run.log(dict(of_evaluation(evaluation)), step=evaluation.step))

    @hookimpl
    def graftkit_export_finished(self, export: ExportInfo) -> None:
        """Tells how an export's proof ended, in the run's summary."""
        self._tell(lambda run: run.summary.update({f"export/{export.name}": export.proof.get("status")}))

    @hookimpl
    def graftkit_run_finished(self, run: RunInfo) -> None:
        """Ends it, as failed where the run did not come to its end; waits a minute at most until all is sent."""
        self._tell(lambda open: open.finish(exit_code=0 if run.status == "finished" else 1))

    def _tell(self, told: Callable[[wandb.Run], None]) -> None:
        """Tells wandb, unless it has stopped listening, which is told once."""
        if self._open is None:
            return
        try:
            told(self._open)
        except Exception as error:  # its process is gone, or its server does not answer
            folder, self._open = self._open.dir, None
            warnings.warn(
                f"wandb takes no more, {type(error).__name__}: {error}; metrics.jsonl has all numbers, and "
                f"`wandb sync {shlex.quote(str(Path(folder).parent))}` uploads what it has taken",
                RuntimeWarning,
                stacklevel=2,
            )

    def _begin(self, run: RunInfo) -> wandb.Run:
        import wandb

        said = self._config
        return wandb.init(
            project=said.project,
            entity=said.entity,
            name=said.name or run.folder.name,
            group=said.group,
            tags=said.tags or None,
            id=run.id,
            resume="allow",
            mode="offline" if offline_asked() else said.mode,
            dir=str(run.folder),
            config=dict(run.recipe),
            reinit="create_new",  # runs go on side by side in a process
            settings=wandb.Settings(
                console="off",
                silent=True,
                symlink=False,  # links are nobody's files: a folder that holds one is not overwritten
                disable_code=True,
                disable_git=True,
                finish_timeout=_SECONDS,
                finish_timeout_raises=True,
            ),
        )
