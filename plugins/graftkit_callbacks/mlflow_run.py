"""One run of MLflow."""

from __future__ import annotations

import itertools
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from graftkit import EvaluationInfo, ExportInfo, RunInfo, StepInfo, hookimpl
from graftkit.errors import RunError

from graftkit_callbacks.config import MlflowConfig
from graftkit_callbacks.figures import LOSSES, of_evaluation, of_step
from graftkit_callbacks.process import process_kept
from graftkit_callbacks.sender import Sender, within

if TYPE_CHECKING:
    from mlflow.entities import Metric, RunTag

__all__ = ["MlflowRun"]

_TAG = "graftkit.run_id"
_AT_MOST = 1000
"""Metrics and tags of one request, which is what a server takes."""
_PARAMETERS = 100
"""Parameters of one request, likewise."""
_CHARACTERS = 6000
"""Characters of a parameter, likewise."""
_SECONDS = 30.0
"""How long the end of a run waits for a server."""
_SECONDS_TO_BEGIN = 60.0
"""How long its start does: a server may ask to be left alone for hours, or answer a byte a second."""
_NAME_LENGTH = 250
"""Characters of a metric's name at most."""
_OTHERS = re.compile(r"[^\w\-. /:]", re.ASCII)
"""Characters that no name may have there."""
_NAME = re.compile(r"[\w-]{1,60}", re.ASCII)
"""A key that can be a part of a parameter's name, whatever stands before it and after it."""
_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own variables as the run begins and ends, where they say nothing: a server that doesn't answer takes it
minutes, how it is used it tells its makers, and where a run is shown it prints, by the names that the server gives."""
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowRun:
    """Tells MLflow a run's recipe, numbers and proofs. A run that is resumed goes on as the same one, by a tag.

    All is sent in a thread of its own: nothing waits for the server. One that can't be reached as the run begins stops
    it; what one does not take later is told and left out, since the run's folder has it, too. Steps and evaluations
    that the server has with the same loss, since a run that was killed takes them anew, are not sent again.
    """

    def __init__(self, config: MlflowConfig) -> None:
        self._config = config
        self._client: Any = None
        self._id = ""
        self._there: set[tuple[str, int, float]] = set()
        self._sender: Sender[Metric | RunTag] | None = None

    @hookimpl
    def graftkit_run_started(self, run: RunInfo) -> None:
        """Begins the run, or goes on with it.

        Raises:
            RunError: The server can't be reached, refuses, or does not answer in time.
        """
        with _variables():
            from mlflow.exceptions import MlflowException

            try:
                told = within(_SECONDS_TO_BEGIN, partial(self._begin, run))
            except TimeoutError:
                raise self._refused(f"it has not answered within {_SECONDS_TO_BEGIN:.0f} s") from None
            except MlflowException as error:
                raise self._refused(str(error).strip()) from None
        if told:
            _warn(told)
        self._sender = Sender(self._log, at_most=_AT_MOST)

    @hookimpl
    def graftkit_step_finished(self, step: StepInfo) -> None:
        """Has the step's numbers sent."""
        self._send_numbers(of_step(step), step.step)

    @hookimpl
    def graftkit_evaluation_finished(self, evaluation: EvaluationInfo) -> None:
        """Has the evaluation's numbers sent."""
        self._send_numbers(of_evaluation(evaluation), evaluation.step)

    @hookimpl
    def graftkit_export_finished(self, export: ExportInfo) -> None:
        """Tells how an export's proof ended, as a tag."""
        from mlflow.entities import RunTag

        self._send([RunTag(f"export.{export.name}", str(export.proof.get("status")))])

    @hookimpl
    def graftkit_run_finished(self, run: RunInfo) -> None:
        """Waits half a minute at most until all is sent, and ends the run."""
        if self._sender is None:
            return
        ended = partial(self._client.set_terminated, self._id, _STATUS[run.status])
        with _variables():
            all_sent = self._sender.close(_SECONDS, last=ended)
        if not all_sent:
            _warn(f"MLflow has not taken all within {_SECONDS:.0f} s; the run's folder has it")
        self._tell_errors()

    def _refused(self, why: str) -> RunError:
        return RunError(f"MLflow can't be told of the run: {why}", hint=_remedy(self._config.tracking_uri))

    def _begin(self, run: RunInfo) -> str:
        """Makes the run, or finds the one to go on with; returns what the user should know of that, "" for nothing."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self._config.tracking_uri)
        name = self._config.experiment
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        of_it = self._client.search_runs([experiment], filter_string=f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if of_it:
            self._id, kept = str(of_it[0].info.run_id), of_it[0].data.params
            self._client.update_run(self._id, status="RUNNING")
            self._there = self._losses_of(of_it[0].data.metrics)
        else:
            named, kept = self._config.name or run.folder.name, {}
            self._id = str(self._client.create_run(experiment, tags={_TAG: run.id}, run_name=named).info.run_id)
        said = {key: str(value)[:_CHARACTERS] for key, value in _leaves(run.recipe)}
        parameters = [Param(key, value) for key, value in said.items() if key not in kept]
        for start in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._id, params=parameters[start : start + _PARAMETERS])
        others = [f"{key}, now {value[:40]}" for key, value in said.items() if kept.get(key, value) != value]
        return f"MLflow keeps parameters as they were when the run began: {'; '.join(others)}" if others else ""

    def _losses_of(self, names: Iterable[str]) -> set[tuple[str, int, float]]:
        """Returns the losses that the server has, each with its name and step."""
        return {
            (name, each.step, each.value)
            for name in names
            if name in LOSSES
            for each in self._client.get_metric_history(self._id, name)
        }

    def _log(self, told: Sequence[Metric | RunTag]) -> None:
        from mlflow.entities import Metric, RunTag

        metrics = [each for each in told if isinstance(each, Metric)]
        self._client.log_batch(self._id, metrics=metrics, tags=[each for each in told if isinstance(each, RunTag)])

    def _send_numbers(self, numbers: Mapping[str, float], step: int) -> None:
        """Has numbers sent, unless the server has those of a step or evaluation with this loss."""
        from mlflow.entities import Metric

        if any((name, step, value) in self._there for name, value in numbers.items()):
            return
        now = int(time.time() * 1000)
        named = names_of(numbers)
        self._send([Metric(named[name], value, now, step) for name, value in numbers.items()])

    def _send(self, told: Sequence[Metric | RunTag]) -> None:
        assert self._sender is not None, "graftkit_run_started comes first"
        self._sender.put(told)
        self._tell_errors()

    def _tell_errors(self) -> None:
        assert self._sender is not None
        for error in self._sender.errors():
            _warn(f"MLflow did not take something, which the run's folder has: {error}")


@contextmanager
def _variables() -> Iterator[None]:
    """Has MLflow's variables say what they are to say, where nobody has said anything else."""
    with process_kept():
        for name, value in _VARIABLES.items():
            os.environ.setdefault(name, value)
        yield


def names_of(numbers: Iterable[str]) -> Mapping[str, str]:
    """Returns what each number is called there, no two alike: some characters, and long names, are refused.

    Those that stay as they are come first; of others that would be the same, the later ones are counted.
    """
    numbers = list(numbers)
    found: dict[str, str] = {}
    for name in sorted(numbers, key=lambda name: name != _allowed(name)):
        allowed = tried = _allowed(name)
        for count in itertools.count(2):
            if tried not in found.values():
                break
            end = f"_{count}"
            tried = allowed[: _NAME_LENGTH - len(end)] + end
        found[name] = tried
    return found


def _allowed(name: str) -> str:
    return _OTHERS.sub("_", name)[:_NAME_LENGTH]


def _remedy(tracking_uri: str | None) -> str:
    """Returns what to do where MLflow can't be told, by where it was to be told."""
    from mlflow.tracking import get_tracking_uri

    said = "plugins.mlflow.tracking_uri or MLFLOW_TRACKING_URI"
    if (tracking_uri or get_tracking_uri()).startswith(("http:", "https:")):
        return f"Start the server, or say by {said} which one answers."
    try:
        version("mlflow")
    except PackageNotFoundError:
        return (
            "What is installed is mlflow-skinny, which tells servers alone. Say by "
            f"{said} which one answers, or, for a database, `pip install mlflow`."
        )
    return f"Say by {said} which server answers, or a database, such as sqlite:///mlflow.db."


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
