"""One run while it goes on: its folder, its manifest, its stages."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import (
    Cancelled,
    GraftkitError,
    HookError,
    PluginCallError,
    RequestError,
    StorageError,
    text_of,
)
from graftkit.flow.events import Event, Notice, OnEvent, Progress, StageFinished, StageStarted
from graftkit.flow.folders.folder import ClaimedFolder
from graftkit.flow.folders.listed_files import is_changed, is_state
from graftkit.flow.folders.own_files import CHECKPOINTS, LOCK, is_runs_own, others_files
from graftkit.flow.memory.measured_memory import measured_memory
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.vocabulary import Vocabulary
from graftkit.flow.state.cancel import CancelToken
from graftkit.flow.state.first_manifest import first_manifest, third_parties
from graftkit.flow.state.log_events import log
from graftkit.flow.state.resume import Resumed
from graftkit.host.guard import end_if_forked, listed, naming_plugins, note_once, raised_by
from graftkit.host.hooks import Disturbed, Hooks
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import RunInfo, RunStatus, StageInfo
from graftkit.host.process_state import ProcessState
from graftkit.host.records import BUILT_IN, PluginRecord
from graftkit.interfaces.file_state import FileState
from graftkit.redact import without_secrets
from graftkit.report.run_manifest import (
    MANIFEST,
    FileFacts,
    RunManifest,
    SettledKey,
    StageFacts,
)
from graftkit.store.file_hashes import file_facts
from graftkit.store.file_states import changed_files, file_states
from graftkit.store.files import is_temporary
from graftkit.training.processes import ALONE, Processes
from graftkit.visible import first_of

if TYPE_CHECKING:
    from graftkit.training.sampled_loss import SamplingPlan

__all__ = ["RunContext", "StageScope", "describe_error"]

LONG_HOOKS = 10.0
"""Seconds that a plugin's lifecycle hooks may take of a run, all together, before that is told at its end."""

_OF_RUN_INFO = frozenset({"recipe", "status", "error", "metrics"})
"""The parts of a manifest that hooks are given with the run."""


class RunContext:
    """What every stage is given.

    Attributes:
        plan: The plan of the run.
        host: The plugins.
        folder: The run's folder.
        cancel: Whether somebody wants it to stop.
        resumed: The run that this one goes on with, or None.
        processes: The processes that train together; this one's rank is 0.
        info: What hooks are given with the run, as it stands.
        vocabulary: What records are encoded with; the first stage puts another one here where the recipe asks for it.
        sampling: How answers are sampled and rewarded, once a stage has made it: its metrics, and the records that it
            keeps, serve those that follow.
        steps_to_come: Returns the examples of each step that training has not taken yet; none before it begins.
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
        self.plan = plan
        self.host = host
        self.folder = folder = claimed.path
        self._claimed = claimed
        self._process = os.getpid()
        self.cancel = cancel
        self.resumed = resumed
        self.processes = processes
        self.vocabulary = Vocabulary(plan.tokenizer, plan.backend, plan.encoder, plan.tokenizer)
        self.sampling: SamplingPlan | None = None
        self.steps_to_come: Callable[[], Iterator[Sequence[int]]] = lambda: iter(())
        self._on_event = on_event
        self._log_failed = False
        self._start = time.perf_counter()
        self._hooks = hooks
        self._hook_seconds = {id(record): record.hook_seconds for record in host.records}
        self._third_parties = third_parties(plan)
        self._theirs = others_files(folder, resumed.manifest) if resumed else []
        self._manifest = first_manifest(plan, resumed, self._theirs)
        self.info = self._run_info()
        self._watched: dict[Path, FileState] = {}
        self._stands = resumed is not None and resumed.only_exports(self._manifest.recipe)
        self.save()

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

    def theirs(self, name: str) -> list[str]:
        """Returns the files in a subfolder that the run which goes on did not write, relative to that subfolder."""
        return [path.removeprefix(f"{name}/") for path in self._theirs if path.startswith(f"{name}/")]

    def is_theirs(self, name: str) -> bool:
        """Tells whether a file is one that the run which goes on did not write, or that was edited since."""
        return name in self._theirs

    def announce(self, name: str, data: bytes) -> None:
        """Has the manifest say what a file is going to be, also that of a finished run, which stands meanwhile.

        Should a kill come before all files are listed, it is known for the run's own.
        """
        facts = FileFacts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        if self._stands and self.resumed is not None:
            before = self.resumed.manifest
            before.with_facts(replacing={**before.replacing, name: [facts]}).write(self.folder)
        else:
            self.record(kept={**self._manifest.kept, name: facts})
            self.save()

    def emit(self, event: Event) -> None:
        """Tells whoever listens. That a handler of `logging` has raised is told once."""
        event = replace(event, run=self._manifest.id)
        raised = log(event)
        self._on_event(event)
        if raised and not self._log_failed:
            self._log_failed = True
            self.notice("log", f"the run goes on although a handler of logging raised {raised}")

    def broadcast(self, hook: str, **arguments: Any) -> list[tuple[PluginRecord, Any]]:
        """Calls a lifecycle hook of every plugin and of the run's callbacks.

        Returns:
            What each returned that returned something, with its plugin.

        Raises:
            HookError: One raised.
        """
        if self._hooks is None:
            return []
        try:
            around = None if self.info.status != "running" else _RunLeftAlone(self.folder, self._claimed)
            return self._hooks.broadcast(hook, around=around, run=self.info, **arguments)
        finally:
            if self._tell_of_plugins() and self.info.status != "running":
                self.save()

    def _tell_of_plugins(self) -> bool:
        """Tells what plugins were found to do, and returns whether there was anything."""
        found = self.host.take_notices()
        for message in found:
            self.notice("plugins", message)
        return bool(found)

    def put_back(self, state: ProcessState, stage: str) -> None:
        """Puts back what code that is called too often to be guarded by itself has changed in the process."""
        changed = state.put_back()
        if changed and self._third_parties:
            suspects = ", ".join(self._third_parties)
            self.notice(stage, f"{listed(changed)} changed, which core put back; in use was {suspects}")

    @contextmanager
    def naming_plugins(self) -> Iterator[None]:
        """Names in errors the plugin whose code raised them, or those that were in use where that can't be told.

        Raises:
            PluginCallError: A plugin's code tried to end the program, where no guard was around it.
        """
        try:
            with naming_plugins():
                yield
        except (RequestError, Cancelled, PluginCallError, HookError):
            raise
        except Exception as error:
            before = _of_hook_before(error)
            if before is not None:
                note_once(error, f"{before.where}: {before.message}")
            culprit = raised_by(error)
            known = culprit is not None and culprit.distribution != BUILT_IN
            if not known and self._third_parties and not getattr(error, "where", "").startswith("plugin "):
                note_once(error, f"in use was {', '.join(self._third_parties)}")
            raise

    def _tell_of_hooks(self) -> None:
        """Tells whose hooks took long."""
        for record in self.host.records:
            seconds = record.hook_seconds - self._hook_seconds.get(id(record), 0.0)
            if seconds > LONG_HOOKS:
                self.notice("plugins", f"{record.label}: its hooks took {seconds:.0f} s of the run")

    def notice(self, stage: str, message: str) -> None:
        """Reports something once, without secrets, and keeps it in the manifest."""
        message = without_secrets(message)
        if message not in self._manifest.notices:
            self.record(notices=[*self._manifest.notices, message])
            self.emit(Notice(stage, message))

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
        self.record(stages=[*self._manifest.stages, stage], written=self._written())
        self.record(memory=self._manifest.measured(name, peak.host, peak.device))
        self.save()
        self.emit(StageFinished(name, seconds, scope.facts))
        self.broadcast("graftkit_stage_finished", stage=StageInfo(name, seconds, scope.facts))

    def finish(self, status: RunStatus, error: BaseException | None = None) -> None:
        """Writes the manifest for the last time, every artifact listed with its hash.

        Of a finished run's checkpoints the last is one, from which it may be trained further, and that of the step that
        it exported; the others go next. What was half-written and could not be removed is none.
        """
        self._tell_of_plugins()
        self._tell_of_hooks()
        self.end(status, error)
        leave_out = {LOCK, MANIFEST, *self._theirs, *filter(is_temporary, self._names())}
        if status == "finished":
            states = [name for name in self._written() if name.startswith(f"{CHECKPOINTS}/")]
            kept = {max((name.split("/")[1] for name in states), default="")}
            kept |= {f"step-{self._manifest.exported.step:08d}"} if self._manifest.exported else set()
            leave_out |= {name for name in states if name.split("/")[1] not in kept}
        found = file_facts(self.folder, leave_out=frozenset(leave_out))
        wrote = {name: facts.model_dump() for name, facts in self._manifest.kept.items() if is_state(name)}
        # a checkpoint that was passed over, since the run had written another, is not vouched for now
        artifacts = {name: wrote.get(name, facts) for name, facts in found.items()}
        self.record(artifacts=artifacts, written=[], kept=self._known_of_edited())
        self.save()

    def _known_of_edited(self) -> dict[str, FileFacts]:
        """Returns what the run wrote of the files that were edited since."""
        before = self.resumed.manifest if self.resumed else self._manifest
        return {name: facts for name in self._theirs if (facts := before.vouched(name))}

    def end(self, status: RunStatus, error: BaseException | None = None) -> None:
        """Notes how the run ended, and why it did where that is an error."""
        self.record(status=status, **({"error": describe_error(error)} if error is not None else {"progress": None}))

    def _written(self) -> list[str]:
        return sorted(self._names() - {LOCK, MANIFEST, *self._theirs})

    def _names(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}

    def keep(self, name: str, facts: FileFacts) -> None:
        """Notes what a file begins with that a run which goes on takes over; the manifest says it once it is saved."""
        there = {other: kept for other, kept in self._manifest.kept.items() if os.path.lexists(self.folder / other)}
        self.record(kept={**there, name: facts})

    def is_changed(self, name: str) -> bool:
        """Tells whether a file of the run that goes on is missing, or another one than its manifest says."""
        return self.resumed is not None and is_changed(self.folder, self.resumed.manifest, name)

    @property
    def manifest(self) -> RunManifest:
        """What the manifest says now."""
        return self._manifest

    def record(self, **facts: Any) -> None:
        """Puts parts of the manifest in the place of those that were there; `RunManifest` names them.

        Raises:
            pydantic.ValidationError: A part has another shape than `RunManifest` says.
        """
        seconds = round(time.perf_counter() - self._start, 3)
        self._manifest = self._manifest.with_facts(seconds=seconds, **facts)
        if not _OF_RUN_INFO.isdisjoint(facts):
            self.info = self._run_info()

    def _run_info(self) -> RunInfo:
        said = self._manifest
        metrics = {when: found.model_dump(mode="json", exclude_unset=True) for when, found in said.metrics.items()}
        return RunInfo(self.folder, said.recipe, said.status, said.id, said.error, metrics)

    def save(self) -> None:
        """Writes the manifest; over that of a finished run, which gets exports alone, not before it has them."""
        self.record()
        self.check_folder()
        if not self._stands or self._manifest.status == "finished":
            self._manifest.write(self.folder)

    def poll(self) -> None:
        """Stops the run where somebody wants that, or where its folder is not what it was.

        Raises:
            Cancelled: The first.
            StorageError: The second; see `check_folder`.
        """
        self.cancel.poll()
        self.check_folder()

    def watch(self, path: Path) -> Path:
        """Has `check_folder` make sure of a file, too, from which the run reads until it ends; gives its path.

        Call it before the file is read: what is written to it afterwards is found out then.

        Raises:
            StorageError: It can't be read.
        """
        try:
            self._watched[path] = FileState.of(path)
        except OSError as error:
            raise StorageError(f"can't be read: {error.strerror}", where=str(path)) from error
        return path

    def check_folder(self) -> None:
        """Makes sure that the run's folder still is the one that it began in, and what it reads there as it was.

        A process that was forked by what is called too often to be guarded ends here, before it writes there, too.

        Raises:
            StorageError: The folder was moved, deleted or replaced, or a file in it that the run reads was changed.
        """
        used = f"; in use was {', '.join(self._third_parties)}" if self._third_parties else ""
        end_if_forked(self._process, f"this process was forked from that of the run in {self.folder}{used}")
        self._claimed.check()
        for path, state in self._watched.items():
            if not state.holds(path):
                raise StorageError(
                    "the file was changed, replaced or deleted while the run read it",
                    where=str(path),
                    hint="Nothing that was computed since the last step is kept. --resume makes the file anew and goes "
                    "on from the last checkpoint.",
                )


def _of_hook_before(error: BaseException) -> HookError | None:
    """Returns the error of a hook that another one came up after, such as that of a folder which is gone by then."""
    former = error.__context__
    while former is not None and not isinstance(former, HookError):
        former = former.__context__
    return former


class _RunLeftAlone(AbstractContextManager[None]):
    """Makes sure that a hook leaves the folder of a run that goes on where it is, and the run's own files as they are.

    Files that are nobody's but a plugin's may come and go, and so may checkpoints, which others might keep elsewhere.

    Args:
        folder: The run's folder.
        claimed: The same, as it was claimed.
    """

    def __init__(self, folder: Path, claimed: ClaimedFolder) -> None:
        self._folder, self._claimed = folder, claimed
        self._before: dict[str, FileState] | None = None

    def __enter__(self) -> None:
        with suppress(StorageError):  # what somebody else has done is told elsewhere
            self._before = None
            self._claimed.check()
            self._before = self._states()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._before is None or kind is not None:
            return
        try:
            self._claimed.check()
        except StorageError as error:
            raise Disturbed(f"has moved or removed the run's folder, {self._folder}") from error
        changed = changed_files(self._before, self._states())
        if changed:
            raise Disturbed(f"changed or removed {first_of(changed)} of {self._folder}, which the run needs")

    def _states(self) -> dict[str, FileState]:
        return file_states(self._folder, self._folder / CHECKPOINTS, only=is_runs_own)


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
