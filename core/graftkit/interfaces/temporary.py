"""A folder for files that are needed for a moment."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftkit.errors import StorageError

__all__ = ["is_no_room", "temporary_folder"]

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Makes a folder where the system keeps temporary files, which is deleted at the end of the block.

    Raises:
        StorageError: None can be made, or what is written in the block finds no room.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="graftkit-", ignore_cleanup_errors=True)
    except OSError as error:  # of several folders, none of which can be written to
        raise _no_room("temporary files", error) from error
    with made as name:
        try:
            yield Path(name)
        except OSError as error:
            if not is_no_room(error):
                raise
            raise _no_room(name, error) from error
        except StorageError as error:  # of what writes files anywhere, and can't know where this folder lies
            if not (isinstance(error.__cause__, OSError) and is_no_room(error.__cause__) and name in error.where):
                raise
            raise _no_room(name, error.__cause__) from error


def is_no_room(error: OSError) -> bool:
    """Tells whether the system refused to write something because there is no room for it."""
    return error.errno in _FULL


def _no_room(where: str, error: OSError) -> StorageError:
    hint = "Free some space there, or name another folder for temporary files with TMPDIR."
    return StorageError(f"can't be written: {error.strerror or error}", where=where, hint=hint)
