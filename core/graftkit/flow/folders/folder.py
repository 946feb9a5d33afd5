"""Claims a run's folder, for one run at a time, without ever destroying what is somebody else's."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from graftkit.errors import FolderError, FolderInUseError, GraftkitError, StorageError
from graftkit.flow.folders.own_files import (
    ADAPTER_FROM,
    CHECKPOINTS,
    LOCK,
    OWN,
    WRITTEN_INTO,
    files_below,
    folders_in_place_of_files,
    others_files,
)
from graftkit.option_names import option
from graftkit.report.run_manifest import MANIFEST, RunManifest
from graftkit.store.system import NO_LINK, guarded, make_folder, sync_folder
from graftkit.store.temporaries import TEMPORARY, sweep, temporary_prefix
from graftkit.visible import first_of

__all__ = ["ClaimedFolder", "claim", "claim_again", "default_folder", "forget_checkpoints", "locked_folder"]

_ASIDE = re.compile(r"\.graftkit-[a-z0-9_]{8}\.replaced")
"""What follows the folder's name in that of the one that holds the run to be replaced."""

_FOLDERS = (
    *("records", "tokenizer", "tokens", ".tokens.partial", "teacher", ".teacher.partial"),
    *(CHECKPOINTS, ADAPTER_FROM, "adapter", "exports"),
)
"""The folders that a run makes in its own, each of which it replaces or removes as a whole."""


@dataclass(slots=True)
class ClaimedFolder:
    """A folder that this run, and no other, may write into.

    Attributes:
        path: The folder.
        lock: The open lock file; the system lets go of it when the process ends, however that happens. -1 for a
            folder that nobody else knows of, which needs none.
        replaced: Where the run lies meanwhile that was there before, or None.
        made: The folders that were made for it, the innermost first.
        resumed: Whether it holds the run that goes on: then nothing in it is ever given back.
    """

    path: Path
    lock: int = -1
    replaced: Path | None = None
    made: tuple[Path, ...] = ()
    resumed: bool = False

    def check(self) -> None:
        """Makes sure that the folder still is the one that was claimed, and its own folders lie in it.

        Raises:
            StorageError: It was moved, deleted or replaced, or its lock was: what follows would be half of a run. Or a
                link has come in the place of a folder in it: what follows would be written, and deleted, elsewhere.
        """
        if self.lock >= 0 and not _lies_there(self.path / LOCK, self.lock):
            raise StorageError(
                f"the run's folder, or its {LOCK}, was moved, deleted or replaced while the run went on",
                where=str(self.path),
                hint=f"Nothing is written there any more. Where the folder is now, {option('out')} with "
                f"{option('resume')} goes on with it.",
            )
        for name in _FOLDERS if self.lock >= 0 else ():
            if (self.path / name).is_symlink():
                raise StorageError(
                    f"a link has come in the place of {name} in it while the run went on",
                    where=str(self.path),
                    hint=f"Nothing is written there any more. Put the folder itself back: {option('resume')} goes on.",
                )

    def keep(self) -> None:
        """The run is over: what it replaced may go, and what runs replaced here that were killed."""
        for place in _asides(self.path):
            _remove_run(place / self.path.resolve().name)
            with suppress(OSError):  # something of somebody else's is left in it
                place.rmdir()
        self.replaced = None
        self.release()

    def release(self) -> None:
        """Lets other runs claim the folder."""
        if self.lock >= 0:
            _unlock(self.path, self.lock)
            self.lock = -1

    def give_back(self, of_hooks: Iterable[str] = ()) -> None:
        """Nothing ran: what this run made goes, and what was there before is put back.

        Args:
            of_hooks: The paths, in the folder, of the files that its hooks have made.
        """
        elsewhere = self.lock >= 0 and not _lies_there(self.path / LOCK, self.lock)
        self.release()
        if self.resumed or elsewhere:  # another folder has come in its place
            return
        with suppress(OSError):
            _clear(self.path)
            _delete_files(self.path, of_hooks)
        for folder in self.made:
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        if self.replaced is not None and not self.path.exists():
            self.replaced.rename(self.path)
            self.replaced.parent.rmdir()
            self.replaced = None


def claim(path: Path, *, overwrite: bool) -> ClaimedFolder:
    """Makes the folder, or moves the run that is in it aside.

    Raises:
        FolderError: It holds another run and `overwrite` is False, a run is going on in it, it holds anything else, or
            it can't be written.
    """
    try:
        _put_back(path)
        if path.is_symlink() and not path.exists():
            raise FolderError(
                "it is a link to a folder that is not there",
                where=str(path),
                hint=f"Make that folder, or give another one with {option('out')}.",
            )
        missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        if missing:
            make_folder(path)
        elif not path.is_dir():
            raise FolderError("it is a file", where=str(path), hint=f"Give a folder with {option('out')}.")
        if not _is_empty(path):
            _run_to_replace(path, overwrite)
        real = path.resolve()  # from here on: a link in the path may come to lead elsewhere
        lock = _lock(real)
        try:
            if _is_empty(real):
                sweep(real)
                return ClaimedFolder(path, lock, made=missing)
            _check_replaceable(real, _run_to_replace(path, overwrite))
            aside = _move_aside(real, lock)
            _unlock(aside, lock)
        except BaseException:
            _unlock(real, lock)
            raise
        return ClaimedFolder(path, _lock(real), replaced=aside, made=(path,))
    except OSError as error:
        raise FolderError(
            f"can't be written: {error.strerror or error}",
            where=str(path),
            hint=f"Write elsewhere with {option('out')}.",
        ) from error


def claim_again(path: Path) -> ClaimedFolder:
    """Claims the folder of a run that goes on, and removes from it what a kill has left half-written.

    Raises:
        FolderError: It is going on already, can't be written, has a link or a file where a run keeps a folder, or a
            folder where it keeps a file.
    """
    for name in _FOLDERS:
        entry = path / name
        if entry.is_symlink() or (entry.exists() and not entry.is_dir()):
            raise FolderError(
                f"{name} in it is a {'link' if entry.is_symlink() else 'file'}, where a run keeps a folder that it "
                "replaces or removes as a whole",
                where=str(path),
                hint=f"Put the folder itself there; a run that needs another disk is started there with "
                f"{option('out')}.",
            )
    for name in files_below(path):
        if WRITTEN_INTO.fullmatch(name) and (path / name).is_symlink():
            raise FolderError(
                f"{name} in it is a link, where a run writes into its own files and folders",
                where=str(path),
                hint="Remove the link: the run makes anew what it needs, or put what it leads to in its place.",
            )
    for place in folders_in_place_of_files(path):
        raise FolderError(
            f"{place} in it is a folder, where a run keeps a file that it replaces or removes",
            where=str(path),
            hint="Move that folder away, and put the file back where there is a copy of it.",
        )
    try:
        lock = _lock(path)
        for folder in (path, path / CHECKPOINTS, path / "exports"):
            sweep(folder)
        return ClaimedFolder(path, lock, resumed=True)
    except OSError as error:
        raise FolderError(
            f"can't be written: {error.strerror or error}",
            where=str(path),
            hint="Go on with a copy of that folder, or get the right to write there.",
        ) from error


def forget_checkpoints(path: Path, exported: int | None) -> None:
    """Deletes the checkpoints of a run that has finished, but for the last: from that one it may be trained further.

    Args:
        path: The run's folder.
        exported: The step that it has exported: should it be trained further, that may be the best one again.

    Raises:
        StorageError: The system refused.
    """
    if (path / CHECKPOINTS).exists():
        from graftkit.training.checkpoint import keep_newest

        keep_newest(path / CHECKPOINTS, () if exported is None else (exported,))


@contextmanager
def locked_folder(path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Holds a folder's lock, by which no other command writes into it; what is in it stays as it is.

    A folder that is made for it, and those around it, go in the end where nothing was put into them.

    Args:
        path: The folder.
        wait: How many seconds another command is waited for.

    Raises:
        FolderError: A run is going on in it, or another command holds it.
        StorageError: The system refused.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    with guarded(path):
        make_folder(path)
        lock = _lock(path, wait)
    try:
        yield
    finally:
        _unlock(path, lock)
        with suppress(OSError):  # something lies in it
            for folder in made:
                folder.rmdir()


def _lock(path: Path, wait: float = 0.0) -> int:
    """Takes the folder's lock, where the system has such locks.

    Args:
        path: The folder.
        wait: How many seconds whoever holds it is waited for.

    Raises:
        FolderInUseError: A living process holds it.
        FolderError: Its file is a link.
    """
    end = time.monotonic() + wait
    while True:
        if (path / LOCK).is_symlink():
            raise FolderError(f"{LOCK} in it is a link", where=str(path), hint="Remove it: it is nobody's data.")
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return handle
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
            raise FolderInUseError(
                "a run or an export is going on in it",
                where=str(path),
                hint=f"Wait for it, or give another folder with {option('out')}.",
            ) from None
        if _lies_there(path / LOCK, handle):
            return handle
        os.close(handle)


def _lies_there(path: Path, handle: int) -> bool:
    """Whether a name still is that of an open file: whoever lets go of a lock removes its file, and another is made."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _unlock(path: Path, handle: int) -> None:
    with suppress(OSError):
        if _lies_there(path / LOCK, handle):  # another may be somebody else's, in a folder that has come in its place
            (path / LOCK).unlink()
    with suppress(OSError):
        os.close(handle)


def _clear(folder: Path) -> None:
    """Deletes what a run writes, and nothing else."""
    for entry in folder.iterdir():
        if not OWN.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _delete_files(folder: Path, names: Iterable[str]) -> None:
    """Deletes files below a folder, and the folders between that are empty then."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        for between in (folder / name).relative_to(folder).parents[:-1]:
            with suppress(OSError):  # something is left in it
                (folder / between).rmdir()


def _run_to_replace(path: Path, overwrite: bool) -> RunManifest:
    """Returns the manifest of the run that is to be replaced.

    Raises:
        FolderInUseError: The run is going on.
        FolderError: There is no run, or it is not to be replaced.
    """
    manifest = RunManifest.read(path)
    if manifest is None:
        raise FolderError(
            "it holds files that are no run", where=str(path), hint=f"Give another folder with {option('out')}."
        )
    if not overwrite:
        if manifest.status == "running":  # or it was killed
            real = path.resolve()
            _unlock(real, _lock(real))
        raise FolderError(
            f"it holds a run ({manifest.status})",
            where=str(path),
            hint=f"Give another folder with {option('out')}, replace that run with {option('overwrite')}, or go on "
            f"with it with {option('resume')}.",
        )
    return manifest


def _check_replaceable(path: Path, manifest: RunManifest) -> None:
    strange = others_files(path, manifest)
    if strange:
        raise FolderError(
            f"besides what its run wrote it holds {first_of(strange)}",
            where=str(path),
            hint=f"Overwriting would delete that, added or edited: move it away, or give another folder "
            f"with {option('out')}.",
        )


def _is_empty(path: Path) -> bool:
    """Whether a folder has nothing in it but what a run leaves that is killed before it has written its manifest."""
    names = [entry.name for entry in path.iterdir() if entry.name != LOCK]
    return all((match := TEMPORARY.fullmatch(name)) and match[1] == MANIFEST for name in names)


def _asides(path: Path) -> list[Path]:
    """Returns the folders in which runs of this folder wait that are to be replaced, the latest first."""
    real = path.resolve()
    found = [
        place
        for place in real.parent.glob(f".{glob.escape(real.name)}.*.replaced")
        if _ASIDE.fullmatch(place.name.removeprefix(f".{real.name}")) and place.is_dir()
    ]
    return sorted(found, key=lambda place: place.stat().st_mtime_ns, reverse=True)


def _put_back(path: Path) -> None:
    """Puts the run back that was to be replaced, where the one that was to replace it was killed before it began.

    Raises:
        FolderError: That one is alive.
    """
    real = path.resolve()
    if real.exists() and not (real.is_dir() and _is_empty(real)):
        return
    for aside in [place / real.name for place in _asides(path) if (place / real.name).is_dir()][:1]:
        if real.exists():
            lock = _lock(real)
            sweep(real)
            _unlock(real, lock)
            real.rmdir()
        aside.rename(real)
        aside.parent.rmdir()
        sync_folder(real.parent)


def _remove_run(folder: Path) -> None:
    """Deletes a run that was moved aside, but nothing that it did not write; its manifest goes last.

    What the system refuses to delete stays.
    """
    with suppress(GraftkitError, OSError):
        manifest = RunManifest.read(folder)
        kept = {MANIFEST, *others_files(folder, manifest)} if manifest else {MANIFEST}
        for place, folders, files in os.walk(folder, topdown=False):
            for name in files:
                if (Path(place) / name).relative_to(folder).as_posix() not in kept:
                    (Path(place) / name).unlink()
            for name in folders:
                with suppress(OSError):  # something is left in it, or it is a link
                    (Path(place) / name).rmdir()
        if kept == {MANIFEST}:
            (folder / MANIFEST).unlink(missing_ok=True)
            folder.rmdir()


def _move_aside(real: Path, lock: int) -> Path:
    """Moves a run aside, and makes an empty folder in its place.

    Args:
        real: Its folder, without links.
        lock: The folder's lock.

    Raises:
        FolderError: Another folder, or a link, has come in its place since it was locked.
    """
    aside = Path(tempfile.mkdtemp(prefix=temporary_prefix(real.name), suffix=".replaced", dir=real.parent)) / real.name
    try:
        real.rename(aside)
        if not _lies_there(aside / LOCK, lock):
            what = "another folder has come in its place meanwhile"
            raise FolderError(what, where=str(real), hint=f"Try again, or give another folder with {option('out')}.")
        real.mkdir()
        shutil.copymode(aside, real)  # whoever has closed it to others wants what is in it now closed, too
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(real)
        aside.parent.rmdir()
        raise
    sync_folder(real.parent)
    return aside


def default_folder(name: str) -> Path:
    """Returns where a recipe's run goes when nothing else is said: `runs/NAME`."""
    return Path(os.curdir) / "runs" / name
