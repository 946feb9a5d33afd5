"""Reads files that anybody may have written, so that no read waits for ever or has no end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = ["MOST_BYTES", "check_own_file", "open_regular", "read_own_file", "read_regular"]

MOST_BYTES = 64 << 20
"""The most that is read into memory of a file of settings, names or lists, unless its reader says otherwise."""
_MOST_LINKS = 40


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading; a link is followed.

    Raises:
        OSError: It can't be read, or is a pipe, a device or a folder: opening a pipe waits for a writer, and a device
            may have no end. Nor may what a kernel makes as it is read, such as /proc/self/pagemap, whose size is 0.
        ValueError: No file can have this name.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or (not facts.st_size and os.read(descriptor, 4096)):
            raise OSError(errno.EINVAL, "this is no regular file", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Returns a file's bytes.

    Args:
        path: The file.
        limit: The most bytes that are read.

    Raises:
        OSError: As with `open_regular`, or it has more bytes than the limit.
        ValueError: No file can have this name.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1) or b""  # None: it would have to be waited for
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MB", str(path))
    return data


def read_own_file(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Returns the bytes of a file of a folder that somebody else may have made.

    Args:
        path: The file.
        limit: The most bytes that are read.

    Raises:
        OSError: As with `read_regular`, or it is a link that `check_own_file` refuses.
        ValueError: No file can have this name.
    """
    check_own_file(path)
    return read_regular(path, limit)


def check_own_file(path: Path) -> None:
    """Refuses a link to a file or folder of another name outside of its own: what it holds would be taken for that's.

    Who makes a folder may link a name in it to anything that its user can read, and have that copied into an export. A
    link to the same name elsewhere is how people gather a model's files, and the hub's cache links into its `blobs`.

    Args:
        path: The file.

    Raises:
        OSError: It is such a link, or one that leads there.
    """
    folder = Path(os.path.realpath(path.parent))
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return
        target = path.parent / path.readlink()
        place = Path(os.path.realpath(target.parent))
        cached = any(above / "blobs" == place for above in Path(os.path.realpath(path.parent)).parents)
        if target.name != path.name and not cached and not place.is_relative_to(folder):
            raise OSError(
                errno.EPERM,
                f"this is a link to another {'folder' if path.is_dir() else 'file'} outside of its folder",
                str(path),
            )
        path = target
