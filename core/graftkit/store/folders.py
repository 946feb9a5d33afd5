"""Folders that are written as wholes: none is ever seen under its final name with a part missing."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from graftkit.errors import FolderError, StorageError
from graftkit.store.system import guarded, sync_folder
from graftkit.store.temporaries import held, make_temporary, sweep_of, temporary_prefix

__all__ = [
    "atomic_folder",
    "new_folder",
    "replace_folder",
]


@contextmanager
def atomic_folder(path: Path, *, keep: Iterable[str] = ()) -> Iterator[Path]:
    """Gives a temporary sibling folder to fill; at the end it is flushed and gets its name as a whole.

    An older folder of that name is deleted only once the new one is in place. What a killed process has left that was
    writing the same folder goes first.

    Args:
        path: The folder.
        keep: Files of an older folder that are somebody else's, relative to it: the new one has them, too.

    Raises:
        StorageError: The system refused, or the new folder has a file in the place of one of `keep`; the older folder,
            if any, is as it was.
    """
    with _filled(path, lambda new: _replace(path, new, keep)) as temporary:
        yield temporary


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill as `atomic_folder` does, which gets its name where there is none but an empty folder.

    Raises:
        FolderError: There is something of that name, which may have come meanwhile, and is as it was.
        StorageError: The system refused.
    """
    with _filled(path, lambda new: _name_new_folder(new, path)) as temporary:
        yield temporary


_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""How systems refuse to give a folder a name that something else has."""


def _name_new_folder(new: Path, path: Path) -> None:
    _sync_tree(new)
    try:
        new.rename(path)
    except OSError as error:
        if error.errno in _TAKEN:
            hint = "Choose another name."
            raise FolderError("there is such a folder already", where=str(path), hint=hint) from error
        raise
    sync_folder(path.parent)


@contextmanager
def _filled(path: Path, put: Callable[[Path], object]) -> Iterator[Path]:
    """Gives a temporary sibling folder to fill, and puts it in its place; it is gone where anything fails."""
    sweep_of(path)
    with guarded(path):
        temporary, _ = make_temporary(path, Path.mkdir)
        try:
            with held(temporary):
                yield temporary
                put(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def replace_folder(path: Path, new: Path, *, keep: Iterable[str] = ()) -> None:
    """Puts a folder in the place of an older one beside it, as `atomic_folder` does at its end.

    Args:
        path: The older folder.
        new: The one that gets its name.
        keep: As for `atomic_folder`.

    Raises:
        StorageError: As for `atomic_folder`.
    """
    with guarded(path):
        _replace(path, new, keep)


def _replace(path: Path, new: Path, keep: Iterable[str]) -> None:
    for name in keep:
        _take_over(path / name, new / name)
    _sync_tree(new)
    _put_in_place(new, path)


def _take_over(old: Path, new: Path) -> None:
    """Gives a file a second place, without a copy where the file system can.

    Raises:
        StorageError: Something is there.
    """
    if os.path.lexists(new):
        raise StorageError(
            "another file would take its place, which is somebody else's",
            where=str(old),
            hint="Move it away, then go on.",
        )
    if not os.path.lexists(old):
        return
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(old, new, follow_symlinks=False)


def _put_in_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        sync_folder(path.parent)
        return
    old = Path(tempfile.mkdtemp(prefix=temporary_prefix(path.name), suffix=".old", dir=path.parent))
    try:
        path.rename(old / path.name)
        temporary.rename(path)
    except BaseException:
        if (old / path.name).exists():
            (old / path.name).rename(path)
        old.rmdir()
        raise
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        else:
            sync_folder(path)
    sync_folder(folder)
