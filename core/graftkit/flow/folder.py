"""Claims a run's folder, for one run at a time, without ever destroying what is somebody else's."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graftkit.errors import FolderError
from graftkit.report.run_manifest import MANIFEST, RunManifest
from graftkit.store.files import sync_folder

__all__ = ["LOCK", "MANIFEST", "ClaimedFolder", "claim", "claim_again"]

LOCK = ".lock"

_OWN = re.compile(
    r"manifest\.json|\.lock|tokenizer|vocabulary\.json|tokens|checkpoints|adapter|exports|probes\.safetensors"
    r"|metrics\.jsonl|answers-(before|after)\.json|report\.html|\..*\.(partial|old)"
)
"""What a run writes at the top of its folder; a plugin's files are known from the manifest."""


@dataclass(slots=True)
class ClaimedFolder:
    """A folder that this run, and no other, may write into.

    Attributes:
        path: The folder.
        lock: The open lock file; the system lets go of it when the process ends, however that happens.
        replaced: Where the run lies meanwhile that was there before, or None.
        made: The folders that were made for it, the innermost first.
        resumed: Whether it holds the run that goes on: then nothing in it is ever given back.
    """

    path: Path
    lock: int
    replaced: Path | None = None
    made: tuple[Path, ...] = ()
    resumed: bool = False

    def keep(self) -> None:
        """The run is over: what it replaced may go."""
        if self.replaced is not None:
            shutil.rmtree(self.replaced.parent, ignore_errors=True)
            self.replaced = None
        self.release()

    def release(self) -> None:
        """Lets other runs claim the folder."""
        if self.lock >= 0:
            _unlock(self.path, self.lock)
            self.lock = -1

    def give_back(self) -> None:
        """Nothing ran: what this run made goes, and what was there before is put back."""
        self.release()
        if self.resumed:
            return
        with suppress(OSError):
            _clear(self.path)
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
        missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        if missing:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            raise FolderError("it is a file", where=str(path), hint="Give a folder with --out.")
        if all(entry.name == LOCK for entry in path.iterdir()):
            return ClaimedFolder(path, _lock(path), made=missing)
        _check_replaceable(path, overwrite)
        _unlock(path, _lock(path))
        aside = _move_aside(path)
        return ClaimedFolder(path, _lock(path), replaced=aside, made=(path,))
    except OSError as error:
        raise FolderError(
            f"can't be written: {error.strerror or error}",
            where=str(path),
            hint="Write elsewhere with --out.",
        ) from error


def claim_again(path: Path) -> ClaimedFolder:
    """Claims the folder of a run that goes on.

    Raises:
        FolderError: It is going on already, or can't be written.
    """
    try:
        return ClaimedFolder(path, _lock(path), resumed=True)
    except OSError as error:
        raise FolderError(f"can't be written: {error.strerror or error}", where=str(path)) from error


def _lock(path: Path) -> int:
    """Takes the folder's lock, where the system has such locks.

    Raises:
        FolderError: A living process holds it.
    """
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return handle
    except BlockingIOError:
        os.close(handle)
        raise FolderError(
            "a run is going on in it", where=str(path), hint="Wait for it, or give another folder with --out."
        ) from None
    return handle


def _unlock(path: Path, handle: int) -> None:
    with suppress(OSError):
        (path / LOCK).unlink(missing_ok=True)
    with suppress(OSError):
        os.close(handle)


def _clear(folder: Path) -> None:
    """Deletes what a run writes, and nothing else."""
    for entry in folder.iterdir():
        if not _OWN.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _check_replaceable(path: Path, overwrite: bool) -> None:
    manifest = RunManifest.read(path)
    if manifest is None:
        raise FolderError("it holds files that are no run", where=str(path), hint="Give another folder with --out.")
    if not overwrite:
        raise FolderError(
            f"it holds a run ({manifest.status})",
            where=str(path),
            hint="Give another folder with --out, or replace that run with --overwrite.",
        )
    listed = {name.partition("/")[0] for name in manifest.artifacts}
    strange = sorted(e.name for e in path.iterdir() if not _OWN.fullmatch(e.name) and e.name not in listed)
    if strange:
        raise FolderError(
            f"besides a run it holds {', '.join(strange[:3])}{' ...' if len(strange) > 3 else ''}",
            where=str(path),
            hint="Overwriting would delete that: move it away, or give another folder with --out.",
        )


def _move_aside(path: Path) -> Path:
    real = path.resolve()
    aside = Path(tempfile.mkdtemp(prefix=f".{real.name}.", suffix=".replaced", dir=real.parent)) / real.name
    try:
        real.rename(aside)
        real.mkdir()
    except BaseException:
        if aside.exists():
            aside.rename(real)
        aside.parent.rmdir()
        raise
    sync_folder(real.parent)
    return aside


def default_folder(name: str) -> Path:
    """Returns where a recipe's run goes when nothing else is said: `runs/NAME`."""
    return Path(os.curdir) / "runs" / name
