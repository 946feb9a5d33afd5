"""Which files below a folder were changed or removed, by their sizes, times and numbers in the file system."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from graftkit.interfaces.file_state import FileState

__all__ = ["changed_files", "file_states"]


def file_states(
    folder: Path, leave_out: Path | None = None, only: Callable[[str], bool] = lambda name: True
) -> dict[str, FileState]:
    """Returns the state of every file below a folder by its relative path.

    Args:
        folder: The folder.
        leave_out: A folder in it that is not looked into.
        only: Tells by its relative path whether a file is looked at.
    """
    found: dict[str, FileState] = {}
    if leave_out is not None and folder.is_relative_to(leave_out):
        return found
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if leave_out is None or Path(place, name) != leave_out)
        for path in (Path(place, name) for name in sorted(files)):
            name = path.relative_to(folder).as_posix()
            if only(name):
                with suppress(OSError):  # a pipe, or gone meanwhile
                    found[name] = FileState.of(path)
    return found


def changed_files(before: Mapping[str, FileState], now: Mapping[str, FileState]) -> list[str]:
    """Returns the files that are gone or are not as they were."""
    return [name for name, state in before.items() if now.get(name) != state]
