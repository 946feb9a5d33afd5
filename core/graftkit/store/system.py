"""What the system is asked for in writing: its refusals in words, links not followed, entries flushed to the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from graftkit.errors import StorageError

__all__ = [
    "NO_LINK",
    "guarded",
    "make_folder",
    "open_in_place",
    "remove_tree",
    "sync_folder",
]

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""The flag of `os.open` by which a link is refused, where the system has it: what it leads to is somebody else's."""

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or write elsewhere.",
    errno.EFBIG: "No larger file is allowed there, or to you (`ulimit -f`): allow it, or write elsewhere.",
    errno.EDQUOT: "Your quota is used up: free some space, or write elsewhere.",
    errno.EROFS: "The file system is read-only: write elsewhere.",
    errno.EACCES: "The folder's permissions forbid it: write elsewhere.",
    errno.ENOENT: "Make its folder first.",
    errno.ENAMETOOLONG: "Give a shorter name: one with 30 bytes more is written first, and then renamed.",
    errno.ELOOP: "It is a link, and what it leads to is left alone: remove it.",
    errno.EMFILE: "No more files may be open at once (`ulimit -n`): allow more.",
}

_OF_THE_SYSTEM = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust, such as safetensors, name the system's error in one of their own."""


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write into an error that says what to do.

    Raises:
        StorageError: Whatever `OSError` came up.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"can't be written: {error.strerror or error}",
            where=str(path),
            hint=_HINTS.get(error.errno or 0, ""),
        ) from error
    except Exception as error:
        said = _OF_THE_SYSTEM.search(str(error))
        if said is None:
            raise
        code = int(said[1])
        raise StorageError(
            f"can't be written: {os.strerror(code)}", where=str(path), hint=_HINTS.get(code, "")
        ) from error


def open_in_place(path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
    """Opens a file that is written where it lies; a link is refused.

    Args:
        path: The file.
        mode: As for `open`, of bytes.
        buffering: As for `open`.

    Raises:
        OSError: It is a link, or the system refuses.
    """
    return open(path, mode, buffering, opener=lambda name, flags: os.open(name, flags | NO_LINK, 0o666))


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those around it that are missing, so that a machine that dies keeps them.

    Raises:
        OSError: The system refused.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        sync_folder(place.parent)


def remove_tree(folder: Path) -> None:
    """Deletes a folder with all that is in it.

    Raises:
        StorageError: The system refused.
    """
    with guarded(folder):
        shutil.rmtree(folder)
