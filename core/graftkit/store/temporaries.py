"""What is being written, under names of its own: what a killed process has left of it is known, and removed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from graftkit.store.system import NO_LINK, guarded, sync_folder

__all__ = [
    "TEMPORARY",
    "held",
    "is_temporary",
    "make_temporary",
    "sweep",
    "sweep_of",
    "temporary_prefix",
]

Made = TypeVar("Made")

TEMPORARY = re.compile(r"\.([^/]+)\.graftkit-[a-z0-9_]{8}\.(partial|old)")
"""Names of what is being written, and of what it replaces: a kill leaves them, and `sweep` removes them.

They have a word of graftkit's own: people call what they keep `.recipe.yaml.20261128.old`.
"""


def temporary_prefix(name: str) -> str:
    """Returns what the name of a temporary sibling begins with; eight random characters and its ending follow."""
    return f".{name}.graftkit-"


def is_temporary(name: str) -> bool:
    """Whether a relative path is that of something half-written, or lies in it."""
    return any(TEMPORARY.fullmatch(part) for part in name.split("/"))


def make_temporary(path: Path, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Makes a temporary sibling, which gets its permissions from the system, as anything that the user makes there.

    Reading the umask would set it, for all threads, and setting permissions takes what a folder's ACL gives.

    Args:
        path: What it is a sibling of.
        make: Makes it where there is nothing.

    Returns:
        Its path, and what `make` returned.
    """
    while True:
        temporary = path.parent / f"{temporary_prefix(path.name)}{secrets.token_hex(4)}.partial"
        try:
            return temporary, make(temporary)
        except FileExistsError:
            continue


def sweep(folder: Path) -> None:
    """Removes what killed processes have left of `write_atomic` and `atomic_folder` in a folder.

    Nobody else may be writing into the folder. Where a kill came between moving an older folder aside and putting the
    new one in its place, the older one is put back. What the system refuses to delete stays.
    """
    if folder.is_dir():
        _sweep([entry for entry in sorted(folder.iterdir()) if TEMPORARY.fullmatch(entry.name)])


def sweep_of(path: Path) -> None:
    """Removes what killed processes have left that were writing one file or folder; others may write beside it.

    Where one of them was replacing an older folder, that is put back, as `sweep` does. Nothing is touched while a
    living process writes it, nor where the system has no locks by which that is known.

    Raises:
        StorageError: The older folder can't be put back.
    """
    try:
        entries = sorted(path.parent.iterdir())
    except OSError:  # there is no such folder, or it may not be read
        return
    left = [entry for entry in entries if (match := TEMPORARY.fullmatch(entry.name)) and match[1] == path.name]
    handles = [_lock(entry) for entry in left]
    if None not in handles:
        _sweep(left)
    for handle in handles:
        if handle is not None:
            os.close(handle)


def _sweep(left: Iterable[Path]) -> None:
    for entry in left:
        name, kind = TEMPORARY.fullmatch(entry.name).groups()  # type: ignore[union-attr]
        place = entry.parent / name
        if kind == "old" and (entry / name).exists() and not os.path.lexists(place):
            with guarded(place):
                (entry / name).rename(place)
            sync_folder(entry.parent)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()


@contextmanager
def held(temporary: Path) -> Iterator[None]:
    """Holds the lock by which others know that what is being written is no killed process's."""
    handle = _lock(temporary)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(path: Path) -> int | None:
    """Locks a file or folder; the system unlocks it when the handle is closed, or its process ends.

    Returns:
        The handle; None where another process holds it, or the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | NO_LINK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            os.close(handle)
    return None
