"""Whether files are still those whose headers were read, by their sizes, times and numbers in the file system."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graftkit.errors import ModelError

__all__ = ["FileState", "FileStates", "changed_file"]


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a file from another one in its place, or from itself after it was written to.

    Attributes:
        size: In bytes.
        modified: When it was last written to, in nanoseconds.
        inode: Its number in the file system.
    """

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, file: Path | int) -> FileState:
        """Asks for a file's state, or that of an open one by its descriptor; links are followed.

        Raises:
            OSError: It can't be asked for, or is a pipe, a device or a folder.
        """
        found = file.stat() if isinstance(file, Path) else os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "this is no regular file", str(file))
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)

    def holds(self, path: Path) -> bool:
        """Tells whether the file at a path is in this state; one that is gone is not."""
        try:
            return FileState.of(path) == self
        except OSError:
            return False

    def check(self, path: Path, descriptor: int | None = None) -> None:
        """Makes sure that a file is still in this state.

        Args:
            path: The file.
            descriptor: The file as it is open; what lies at the path when left out.

        Raises:
            ModelError: It isn't, or is gone.
        """
        try:
            now = FileState.of(path if descriptor is None else descriptor)
        except OSError as error:
            raise changed_file(path, f"is gone or can't be read any more ({error.strerror})") from error
        if now != self:
            raise changed_file(path)


@dataclass(frozen=True, slots=True)
class FileStates:
    """The states of several files.

    Attributes:
        states: Each one's by its path.
    """

    states: Mapping[Path, FileState]

    @classmethod
    def of(cls, files: Iterable[Path]) -> FileStates:
        """Asks for their states. Do so before the files are read: what changes afterwards is found out then.

        Raises:
            ModelError: One can't be asked for.
        """
        states = {}
        for path in files:
            try:
                states[path] = FileState.of(path)
            except (OSError, ValueError) as error:
                raise ModelError(f"can't be read: {getattr(error, 'strerror', error)}", where=str(path)) from error
        return cls(states)

    def check(self, *paths: Path) -> None:
        """Makes sure that files, all of them when none is named, are as they were.

        Raises:
            ModelError: One isn't, or is gone.
        """
        for path in paths or self.states:
            self.states[path].check(path)


def changed_file(path: Path, how: str = "was changed or replaced") -> ModelError:
    """Returns the error of a file that is not the one whose header was read."""
    return ModelError(
        f"the file {how} after its header was read",
        where=str(path),
        hint="Put the base model's file back and start again; leave it as it is until the command has ended.",
    )
