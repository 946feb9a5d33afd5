"""One run of MLflow."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftkit import EvaluationInfo, ExportInfo, RunInfo, StepInfo, hookimpl
from graftkit.errors import RunError

from graftkit_callbacks.config import MlflowConfig
from graftkit_callbacks.figures import of_evaluation, of_step
from graftkit_callbacks.process import process_kept
from graftkit_callbacks.sender import Sender

if TYPE_CHECKING:
    from mlflow.entities import Metric

__all__ = ["MlflowRun"]

_TAG = "graftkit.run_id"
_AT_MOST = 1000
"""Metrics of one request, which is what a server takes."""
_PARAMETERS = 100
"""Parameters of one request, likewise."""
_CHARACTERS = 6000
"""Characters of a parameter, likewise."""
_SECONDS = 30.0
"""How long the end of a run waits for a server."""
_OTHERS = re.compile(r"[^\w\-. /:]", re.ASCII)
"""Characters that no name may have there."""
_NAME = re.compile(r"[\w-]{1,60}", re.ASCII)
"""A key that can be a part of a parameter's name, whatever stands before it and after it."""
_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's own variables as the run begins, where they say nothing: a server that doesn't answer takes it minutes, and
how it is used it tells its makers."""
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowRun:
    """Tells MLflow a run's recipe, numbers and proofs. A run that is resumed goes on as the same one, by a tag.

    Numbers, tags and the end are sent in threads of their own: nothing waits for the server. One that can't be reached
    as the run begins stops it; what one does not take later is told and left out, since metrics.jsonl has it, too.
    """

    def __init__(self, config: MlflowConfig) -> None:
        self._config = config
        self._client: Any = None
        self._id = ""
        self._numbers: Sender[Metric] | None = None
        self._calls: Sender[tuple[str, Sequence[str]]] | None = None

    @hookimpl
    def graftkit_run_started(self, run: RunInfo) -> None:
        """Begins the run, or goes on with it.

        Raises:
            RunError: The server can't be reached, or refuses.
        """
        with process_kept():
            for name, value in _VARIABLES.items():
                os.environ.setdefault(name, value)
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            try:
                self._client = MlflowClient(tracking_uri=self._config.tracking_uri)
                self._id = self._run_of(run)
            except MlflowException as error:
                raise RunError(
                    f"MLflow can't be told of the run: {error}",
                    hint="Say by plugins.mlflow.tracking_uri or MLFLOW_TRACKING_URI which server or database answers.",
                ) from None
        self._numbers = Sender(lambda metrics: self._client.log_batch(self._id, metrics=metrics), at_most=_AT_MOST)
        self._calls = Sender(self._call, at_most=1)

    @hookimpl
    def graftkit_step_finished(self, step: StepInfo) -> None:
        """Has the step's numbers sent."""
        self._send(of_step(step), step.step)

    @hookimpl
    def graftkit_evaluation_finished(self, evaluation: EvaluationInfo) -> None:
        """Has the evaluation's numbers sent."""
        self._send(of_evaluation(evaluation), evaluation.step)

    @hookimpl
    def graftkit_export_finished(self, export: ExportInfo) -> None:
        """Tells how an export's proof ended, as a tag."""
        assert self._calls is not None, "graftkit_run_started comes first"
        self._calls.put([("set_tag", (f"export.{export.name}", str(export.proof.get("status"))))])

    @hookimpl
    def graftkit_run_finished(self, run: RunInfo) -> None:
        """Waits half a minute at most until all is sent, and ends the run."""
        if self._numbers is None or self._calls is None:
            return
        until = time.monotonic() + _SECONDS
        all_taken = self._numbers.close(_SECONDS)
        if all_taken:
            self._calls.put([("set_terminated", (_STATUS[run.status],))])
            all_taken = self._calls.close(max(0.0, until - time.monotonic()))
        if not all_taken:
            _warn(f"MLflow has not taken all within {_SECONDS:.0f} s; metrics.jsonl has the numbers")
        self._tell_errors()

    def _run_of(self, run: RunInfo) -> str:
        from mlflow.entities import Param

        name = self._config.experiment
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        of_it = self._client.search_runs([experiment], filter_string=f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if of_it:
            made, kept = of_it[0].info.run_id, of_it[0].data.params
            self._client.update_run(made, status="RUNNING")
        else:
            named, kept = self._config.name or run.folder.name, {}
            made = self._client.create_run(experiment, tags={_TAG: run.id}, run_name=named).info.run_id
        said = {key: str(value)[:_CHARACTERS] for key, value in _leaves(run.recipe)}
        parameters = [Param(key, value) for key, value in said.items() if key not in kept]
        for start in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(made, params=parameters[start : start + _PARAMETERS])
        others = [f"{key}, now {value[:40]}" for key, value in said.items() if kept.get(key, value) != value]
        if others:
            _warn(f"MLflow keeps parameters as they were when the run began: {'; '.join(others)}")
        return str(made)

    def _send(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        assert self._numbers is not None, "graftkit_run_started comes first"
        now = int(time.time() * 1000)
        self._numbers.put([Metric(_OTHERS.sub("_", name), value, now, step) for name, value in numbers.items()])
        self._tell_errors()

    def _tell_errors(self) -> None:
        assert self._numbers is not None and self._calls is not None
        for error in self._numbers.errors():
            _warn(f"MLflow did not take some numbers, which metrics.jsonl has: {error}")
        for error in self._calls.errors():
            _warn(str(error))

    def _call(self, calls: Sequence[tuple[str, Sequence[str]]]) -> None:
        for method, arguments in calls:
            try:
                getattr(self._client, method)(self._id, *arguments)
            except Exception as error:
                raise RunError(f"MLflow did not take {' '.join(arguments)}: {error}") from None


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each value of nested sections under its dotted path, as recipes are spelt on the command line.

    A mapping of something else than names, such as of regular expressions or files, is one value.
    """
    if isinstance(value, Mapping) and all(_NAME.fullmatch(str(key)) for key in value):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{place}")
    else:
        yield path, value
