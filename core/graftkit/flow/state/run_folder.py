"""A run's folder while the run goes on: whose its files are, and that it and they stay as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from graftkit.errors import StorageError
from graftkit.flow.folders.folder import ClaimedFolder, locked_folder
from graftkit.flow.folders.listed_files import is_changed, is_state
from graftkit.flow.folders.own_files import CHECKPOINTS, LOCK, is_runs_own, others_files
from graftkit.host.guard import end_if_forked
from graftkit.host.hooks import Disturbed
from graftkit.interfaces.file_state import FileState
from graftkit.option_names import option
from graftkit.report.run_manifest import MANIFEST, FileFacts, RunManifest
from graftkit.store.file_hashes import facts_of, file_facts
from graftkit.store.file_states import changed_files, file_states
from graftkit.store.temporaries import is_temporary
from graftkit.visible import first_of

__all__ = ["RunFolder"]


class RunFolder:
    """A run's folder while the run goes on.

    Args:
        claimed: The folder.
        before: What the manifest of the run that goes on says; None where none does.
        in_use: The plugins that are not built in, as messages name them.

    Attributes:
        path: The folder.
        others: The files in it that the run which goes on did not write, or that were edited since.
    """

    def __init__(self, claimed: ClaimedFolder, before: RunManifest | None, in_use: Sequence[str]) -> None:
        self.path = claimed.path
        self.others = others_files(self.path, before) if before else []
        self._claimed, self._before = claimed, before
        self._process = os.getpid()
        self._used = f"; in use was {', '.join(in_use)}" if in_use else ""
        self._watched: dict[Path, FileState] = {}

    def theirs(self, name: str) -> list[str]:
        """Returns those of the others' files that lie in a subfolder, relative to that subfolder."""
        return [path.removeprefix(f"{name}/") for path in self.others if path.startswith(f"{name}/")]

    def is_theirs(self, name: str) -> bool:
        """Tells whether a file is one of the others'."""
        return name in self.others

    def is_changed(self, name: str) -> bool:
        """Tells whether a file of the run that goes on is missing, or another one than its manifest says."""
        return self._before is not None and is_changed(self.path, self._before, name)

    def edited(self) -> dict[str, FileFacts]:
        """Returns what the run that goes on wrote of the files that were edited since."""
        if self._before is None:
            return {}
        return {name: facts for name in self.others if (facts := self._before.vouched(name))}

    def written(self) -> list[str]:
        """Returns the files that the run has written so far, its manifest not among them."""
        return sorted(self._names() - {LOCK, MANIFEST, *self.others})

    def of_hooks(self) -> dict[str, FileState]:
        """Returns the state of each file that neither the run itself nor somebody else has written, by its name.

        Those are hooks', and what somebody has put there since the run began.
        """

        def is_of_hooks(name: str) -> bool:
            return not (name == LOCK or is_runs_own(name) or self.is_theirs(name))

        return file_states(self.path, self.path / CHECKPOINTS, only=is_of_hooks)

    def left_by_hooks(self, manifest: RunManifest) -> list[str]:
        """Returns the hooks' files: those that the manifest lists, and what lies beside them in folders of theirs."""
        there = self.of_hooks()
        theirs = {name.split("/")[0] for name in manifest.written if name in there}
        return [name for name in there if name.split("/")[0] in theirs]

    def listed_again(self, manifest: RunManifest, before: Mapping[str, FileState]) -> dict[str, object]:
        """Returns what a manifest lists, with the hooks' files as they are now.

        Args:
            manifest: What a run says that is over.
            before: The state of those files when they were listed.

        Raises:
            OSError: One can't be read.
        """
        now = self.of_hooks()
        gone = {name for name in before if name not in now}
        changed = [name for name, state in now.items() if before.get(name) != state]
        found = {name: facts for name, facts in manifest.artifacts.items() if name not in gone}
        return found | {name: facts_of(self.path / name) for name in changed}

    def ends_as(self, manifest: RunManifest) -> bool:
        """Tells whether the folder says how this run ended: not where it is given back, was moved, or is another's.

        Args:
            manifest: What the run says that is over.

        Raises:
            FolderError: What the folder says can't be read.
        """
        there = RunManifest.read(self.path)
        return there is not None and (there.id, there.status) == (manifest.id, manifest.status)

    def held(self) -> AbstractContextManager[None]:
        """Returns what keeps other commands from the folder of a run that is over, also once it was let go of.

        Raises:
            FolderError: Another command holds it.
        """
        return nullcontext() if self._claimed.lock >= 0 else locked_folder(self.path)

    def artifacts(self, manifest: RunManifest) -> dict[str, object]:
        """Returns size and hash of each file that a run leaves, as a manifest has them.

        Of a finished run's checkpoints the last is one, from which it may be trained further, and that of the step that
        it exported; the others go next. What was half-written and could not be removed is none.

        Args:
            manifest: What the run says as it ends.
        """
        leave_out = {LOCK, MANIFEST, *self.others, *filter(is_temporary, self._names())}
        if manifest.status == "finished":
            states = [name for name in self.written() if name.startswith(f"{CHECKPOINTS}/")]
            kept = {max((name.split("/")[1] for name in states), default="")}
            kept |= {f"step-{manifest.exported.step:08d}"} if manifest.exported else set()
            leave_out |= {name for name in states if name.split("/")[1] not in kept}
        found = file_facts(self.path, leave_out=frozenset(leave_out))
        wrote = {name: facts.model_dump() for name, facts in manifest.kept.items() if is_state(name)}
        # a checkpoint that was passed over, since the run had written another, is not vouched for now
        return {name: wrote.get(name, facts) for name, facts in found.items()}

    def _names(self) -> set[str]:
        return {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()}

    def watch(self, path: Path) -> Path:
        """Has `check` make sure of a file, too, from which the run reads until it ends; gives its path.

        Call it before the file is read: what is written to it afterwards is found out then.

        Raises:
            StorageError: It can't be read.
        """
        try:
            self._watched[path] = FileState.of(path)
        except OSError as error:
            raise StorageError(f"can't be read: {error.strerror}", where=str(path)) from error
        return path

    def check(self) -> None:
        """Makes sure that the folder still is the one that the run began in, and what is read there as it was.

        A process that was forked by what is called too often to be guarded ends here, before it writes there, too.

        Raises:
            StorageError: The folder was moved, deleted or replaced, or a file in it that the run reads was changed.
        """
        end_if_forked(self._process, f"this process was forked from that of the run in {self.path}{self._used}")
        self._claimed.check()
        for path, state in self._watched.items():
            if not state.holds(path):
                raise StorageError(
                    "the file was changed, replaced or deleted while the run read it",
                    where=str(path),
                    hint="Nothing that was computed since the last step is kept. "
                    f"{option('resume')} makes the file anew and goes "
                    "on from the last checkpoint.",
                )

    def left_alone(self) -> AbstractContextManager[None]:
        """Returns what makes sure that a hook which is called in it leaves the folder and the run's files alone.

        What it raises, `Disturbed`, says what the hook has done. It may be entered again and again.
        """
        return _LeftAlone(self.path, self._claimed)


class _LeftAlone(AbstractContextManager[None]):
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
