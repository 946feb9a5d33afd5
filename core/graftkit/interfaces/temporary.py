"""A folder for files that are needed for a moment."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftkit.errors import StorageError

__all__ = ["is_no_room", "temporary_folder"]

_OR_ANOTHER = "Free some space there, or name another folder for temporary files with TMPDIR."
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})


@contextmanager
def temporary_folder(within: Path | None = None) -> Iterator[Path]:
    """Makes a folder for temporary files, which is deleted at the end of the block.

    Args:
        within: Where to make it, such as the workspace of a proof, with which it goes if this process is killed; None:
            where the system keeps temporary files.

    Raises:
        StorageError: None can be made, or what is written in the block finds no room.
    """
    hint = "Free some space there." if within else _OR_ANOTHER
    try:
        made = tempfile.TemporaryDirectory(prefix="graftkit-", dir=within, ignore_cleanup_errors=True)
    except OSError as error:  # of several folders, none of which can be written to
        raise _no_room("temporary files" if within is None else str(within), error, hint) from error
    with made as name:
        try:
            yield Path(name)
        except OSError as error:
            if not is_no_room(error):
                raise
            raise _no_room(name, error, hint) from error
        except StorageError as error:  # of what writes files anywhere, and can't know where this folder lies
            if not (isinstance(error.__cause__, OSError) and is_no_room(error.__cause__) and name in error.where):
                raise
            raise _no_room(name, error.__cause__, hint) from error


def is_no_room(error: OSError) -> bool:
    """Tells whether the system refused to write something because there is no room for it."""
    return error.errno in _FULL


def _no_room(where: str, error: OSError, hint: str) -> StorageError:
    return StorageError(f"can't be written: {error.strerror or error}", where=where, hint=hint)
