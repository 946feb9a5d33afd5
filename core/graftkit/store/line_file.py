"""A file that grows by lines, such as a run's metrics."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from graftkit.errors import StorageError
from graftkit.interfaces.regular_file import open_regular
from graftkit.store.system import guarded, open_in_place, sync_folder

__all__ = ["LineFile"]


class LineFile:
    """A file that grows by whole lines of JSON, each handed to the system at once.

    A line that the system refuses is kept, and comes before whatever is added or flushed next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        with guarded(path):
            self._file = open_in_place(path, "ab", 0)
            self._size = path.stat().st_size
            with open_regular(path) as before:
                self._digest = hashlib.file_digest(before, "sha256")
        sync_folder(path.parent)

    def append(self, data: Mapping[str, Any]) -> None:
        """Adds one line.

        Raises:
            StorageError: The system refused.
        """
        line = json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"
        self._waiting += line.encode("utf-8")
        self._write()

    def _write(self) -> None:
        rest = memoryview(self._waiting)
        with guarded(self._path):
            try:
                while rest:  # a disk that fills up takes a part, and refuses only the next write
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with suppress(OSError):
                    os.truncate(self._path, self._size)
                raise
        self._size += len(self._waiting)
        self._digest.update(self._waiting)
        self._waiting = b""

    @property
    def facts(self) -> dict[str, Any]:
        """What has been written so far, and what was there before, as `file_facts` says it of a file."""
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def sync(self) -> None:
        """Makes sure that the lines so far are on the disk, under the file's name.

        Raises:
            StorageError: The system refused, or the file is gone.
        """
        self._write()
        with guarded(self._path):
            os.fsync(self._file.fileno())
            same = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        if not same:
            raise StorageError("another file has come in its place while it was written", where=str(self._path))

    def close(self) -> None:
        """Flushes the file to the disk and closes it."""
        with guarded(self._path), self._file:
            os.fsync(self._file.fileno())
