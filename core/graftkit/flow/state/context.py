"""One run while it goes on: its stages, and what each of them is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from graftkit.errors import GraftkitError, text_of
from graftkit.flow.events import Event, Notice, OnEvent, Progress, StageFinished, StageStarted
from graftkit.flow.folders.folder import ClaimedFolder
from graftkit.flow.memory.measured_memory import measured_memory
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.vocabulary import Vocabulary
from graftkit.flow.state.cancel import CancelToken
from graftkit.flow.state.first_manifest import first_manifest, third_parties
from graftkit.flow.state.log_events import log
from graftkit.flow.state.manifest_file import ManifestFile
from graftkit.flow.state.resume import Resumed
from graftkit.flow.state.run_folder import RunFolder
from graftkit.flow.state.run_plugins import RunPlugins
from graftkit.host.hooks import Hooks
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import RunStatus, StageInfo
from graftkit.host.process_state import ProcessState
from graftkit.host.records import PluginRecord
from graftkit.interfaces.file_state import FileState
from graftkit.redact import without_secrets
from graftkit.report.run_manifest import RunManifest, SettledKey, StageFacts
from graftkit.training.processes import ALONE, Processes

__all__ = ["RunContext", "StageScope", "describe_error"]


class RunContext:
    """What every stage is given.

    Attributes:
        plan: The plan of the run.
        host: The plugins.
        files: The run's folder, and whose its files are.
        folder: The path of that.
        manifest_file: The run's manifest, and when it is written.
        cancel: Whether somebody wants it to stop.
        resumed: The run that this one goes on with, or None.
        processes: The processes that train together; this one's rank is 0.
        vocabulary: What records are encoded with; the first stage puts another one here where the recipe asks for it.
    """

    def __init__(
        self,
        plan: RunPlan,
        host: PluginHost,
        claimed: ClaimedFolder,
        on_event: OnEvent,
        cancel: CancelToken,
        resumed: Resumed | None = None,
        processes: Processes = ALONE,
        hooks: Hooks | None = None,
    ) -> None:
        start = time.perf_counter()
        self.plan = plan
        self.host = host
        self.cancel = cancel
        self.resumed = resumed
        self.processes = processes
        self.vocabulary = Vocabulary(plan.tokenizer, plan.backend, plan.encoder, plan.tokenizer)
        self._on_event = on_event
        self._log_failed = False
        in_use = third_parties(plan)
        self._plugins = RunPlugins(host, hooks, in_use)
        self.files = RunFolder(claimed, resumed.manifest if resumed else None, in_use)
        self.folder = self.files.path
        first = first_manifest(plan, resumed, self.files.others)
        stands = resumed.manifest if resumed and resumed.only_exports(first.recipe) else None
        self.manifest_file = ManifestFile(self.files, first, stands, start)
        self.save()

    @property
    def manifest(self) -> RunManifest:
        """What the manifest says now."""
        return self.manifest_file.now

    def record(self, **facts: Any) -> None:
        """Puts parts of the manifest in the place of those that were there; see `ManifestFile.record`."""
        self.manifest_file.record(**facts)

    def save(self) -> None:
        """Writes the manifest; see `ManifestFile.save`. While the run goes on, it lists the files that there are."""
        if self.manifest.status == "running":
            self.record(written=self.files.written())
        self.manifest_file.save()

    def settle(self, found: Mapping[str, SettledKey]) -> None:
        """Goes on with what keys of the recipe that say `auto` come to on this machine; each is told once."""
        for key, settled in found.items():
            if key not in self.plan.settled:
                self.notice("plan", settled.describe(key))
        if found.keys() <= self.plan.settled.keys():
            return
        self.plan = self.plan.with_settled(found)
        recipe = self.plan.bound.resolved()
        self.record(recipe=recipe, settled=dict(self.plan.settled))

    def poll(self) -> None:
        """Stops the run where somebody wants that, or where its folder is not what it was.

        Raises:
            Cancelled: The first.
            StorageError: The second; see `RunFolder.check`.
        """
        self.cancel.poll()
        self.files.check()

    def emit(self, event: Event) -> None:
        """Tells whoever listens. That a handler of `logging` has raised is told once."""
        event = replace(event, run=self.manifest.id)
        raised = log(event)
        self._on_event(event)
        if raised and not self._log_failed:
            self._log_failed = True
            self.notice("log", f"the run goes on although a handler of logging raised {raised}")

    def notice(self, stage: str, message: str) -> None:
        """Reports something once, without secrets, and keeps it in the manifest.

        Where nothing but an export is asked of a finished run, what was reported of the run before is kept alone.
        """
        message = without_secrets(message)
        if message not in self.manifest.notices:
            self.record(notices=[*self.manifest.notices, message])
            if self.resumed is None or not self.resumed.is_told(message):
                self.emit(Notice(stage, message))

    def broadcast(self, hook: str, **arguments: Any) -> list[tuple[PluginRecord, Any]]:
        """Calls a lifecycle hook of every plugin and of the run's callbacks.

        Returns:
            What each returned that returned something, with its plugin.

        Raises:
            HookError: One raised.
        """
        over = self.manifest.status != "running"
        followed = self._plugins.follow(hook)
        before = self.files.of_hooks() if over and followed else {}
        try:
            around = None if over else self.files.left_alone()
            answers = self._plugins.broadcast(hook, around, run=self.manifest_file.info, **arguments)
        finally:
            noticed = self._tell_of_plugins()
            if over and followed:
                self._end_again(noticed, before)
        if followed and not over and not self.files.of_hooks().keys() <= set(self.manifest.written):
            self.save()  # a run that is killed says which files are its own
        return answers

    def _end_again(self, noticed: bool, before: Mapping[str, FileState]) -> None:
        """Writes the manifest once more where the last hooks, called after it was written, have changed what it says.

        Args:
            noticed: Whether plugins were found to have done something.
            before: The state of hooks' files when the manifest was written.
        """
        if not noticed and self.files.of_hooks() == before:
            return
        try:
            if self.files.ends_as(self.manifest):
                with self.files.held():
                    self.record(artifacts=self.files.listed_again(self.manifest, before))
                    self.save()
        except (GraftkitError, OSError) as error:
            self.emit(Notice("plugins", f"what hooks changed after the run is not in its manifest: {text_of(error)}"))

    def _tell_of_plugins(self) -> bool:
        """Tells what plugins were found to do, and returns whether there was anything."""
        found = self._plugins.found()
        for message in found:
            self.notice("plugins", message)
        return bool(found)

    def put_back(self, state: ProcessState, stage: str) -> None:
        """Puts back what code that is called too often to be guarded by itself has changed in the process."""
        if told := self._plugins.put_back(state):
            self.notice(stage, told)

    def naming_plugins(self) -> AbstractContextManager[None]:
        """Returns what names in errors the plugins that they are of; see `RunPlugins.named`."""
        return self._plugins.named()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageScope]:
        """Marks the time in which a stage runs; the manifest is saved at its end."""
        self.poll()
        self.emit(StageStarted(name))
        self.record(progress={"stage": name})
        scope = StageScope(self, name)
        start, state = time.perf_counter(), ProcessState()
        try:
            with measured_memory() as peak:
                yield scope
        finally:
            self.put_back(state, name)
            self._tell_of_plugins()
        seconds = round(time.perf_counter() - start, 3)
        stage = StageFacts.model_validate({"name": name, "seconds": seconds, **scope.facts})
        self.record(stages=[*self.manifest.stages, stage])
        self.record(memory=self.manifest.measured(name, peak.host, peak.device))
        self.save()
        self.emit(StageFinished(name, seconds, scope.facts))
        self.broadcast("graftkit_stage_finished", stage=StageInfo(name, seconds, scope.facts))

    def finish(self, status: RunStatus, error: BaseException | None = None) -> None:
        """Writes the manifest for the last time, every artifact listed with its hash."""
        self._tell_of_plugins()
        for message in self._plugins.slow_hooks():
            self.notice("plugins", message)
        self.end(status, error)
        self.record(artifacts=self.files.artifacts(self.manifest), written=[], kept=self.files.edited())
        self.save()

    def end(self, status: RunStatus, error: BaseException | None = None) -> None:
        """Notes how the run ended, and why it did where that is an error."""
        self.record(status=status, **({"error": describe_error(error)} if error is not None else {"progress": None}))


class StageScope:
    """What one stage tells.

    Attributes:
        name: The stage's name.
        facts: What it found out, as JSON.
    """

    def __init__(self, run: RunContext, name: str) -> None:
        self._run = run
        self.name = name
        self.facts: dict[str, Any] = {}

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Returns a function that tells how far it came, and stops the stage when asked to."""
        start = time.perf_counter()

        def report(done: int, total: int) -> None:
            self._run.poll()
            left = (time.perf_counter() - start) / done * (total - done) if done else None
            self._run.emit(Progress(self.name, what, done, total, seconds_left=left))

        return report

    def notice(self, message: str) -> None:
        """Tells the user something, and keeps it in the manifest."""
        self._run.notice(self.name, message)


def describe_error(error: BaseException) -> dict[str, str]:
    """Returns what a manifest says of an error, secrets hidden."""
    where = next((note for note in getattr(error, "__notes__", ()) if note.startswith("plugin ")), "")
    found = {"kind": type(error).__name__, "code": "", "message": text_of(error), "where": where, "hint": ""}
    if isinstance(error, GraftkitError):
        found |= {"code": error.code, "message": error.message, "where": error.where, "hint": error.hint}
    return {key: without_secrets(text) for key, text in found.items()}
