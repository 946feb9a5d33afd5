"""Claims a run's folder without ever destroying what is in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.store.files import sync_folder

__all__ = ["ClaimedFolder", "claim", "read_manifest"]

MANIFEST = "manifest.json"


@dataclass(slots=True)
class ClaimedFolder:
    """A folder that this run may write into.

    Attributes:
        path: The folder.
        replaced: Where the run lies meanwhile that was there before, or None.
        made: The folders that were made for it, the innermost first.
        resumed: Whether it holds the run that goes on: then nothing in it is ever given back.
    """

    path: Path
    replaced: Path | None = None
    made: tuple[Path, ...] = ()
    resumed: bool = False

    def keep(self) -> None:
        """The run is over: what it replaced may go."""
        if self.replaced is not None:
            shutil.rmtree(self.replaced.parent, ignore_errors=True)
            self.replaced = None

    def give_back(self) -> None:
        """Nothing ran: what was made goes, and what was there before is put back."""
        if self.resumed:
            return
        with suppress(OSError):
            _clear(self.path)
        for folder in self.made:
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        if self.replaced is not None:
            self.replaced.rename(self.path)
            self.replaced.parent.rmdir()
            self.replaced = None


def claim(path: Path, *, overwrite: bool) -> ClaimedFolder:
    """Makes the folder, or moves the run that is in it aside.

    Raises:
        FolderError: It holds another run and `overwrite` is False, holds anything else, or can't be written.
    """
    try:
        missing = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        if missing:
            path.mkdir(parents=True)
            return ClaimedFolder(path, made=missing)
        if not path.is_dir():
            raise FolderError("it is a file", where=str(path), hint="Give a folder with --out.")
        if not any(path.iterdir()):
            _try_to_write(path)
            return ClaimedFolder(path)
        _check_replaceable(path, overwrite)
        return ClaimedFolder(path, replaced=_move_aside(path), made=(path,))
    except OSError as error:
        raise FolderError(
            f"can't be written: {error.strerror or error}",
            where=str(path),
            hint="Write elsewhere with --out.",
        ) from error


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _try_to_write(path: Path) -> None:
    with tempfile.TemporaryFile(dir=path):
        pass


def _check_replaceable(path: Path, overwrite: bool) -> None:
    manifest = read_manifest(path)
    if manifest is None:
        raise FolderError("it holds files that are no run", where=str(path), hint="Give another folder with --out.")
    if not overwrite:
        raise FolderError(
            f"it holds a run ({manifest.get('status')})",
            where=str(path),
            hint="Give another folder with --out, or replace that run with --overwrite.",
        )


def _move_aside(path: Path) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".replaced", dir=path.parent)) / path.name
    try:
        path.rename(aside)
        path.mkdir()
    except BaseException:
        if aside.exists():
            aside.rename(path)
        aside.parent.rmdir()
        raise
    sync_folder(path.parent)
    return aside


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns a run's manifest, or None where the folder holds no run."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and "graftkit" in data and "status" in data else None


def default_folder(name: str) -> Path:
    """Returns where a recipe's run goes when nothing else is said: `runs/NAME`."""
    return Path(os.curdir) / "runs" / name
