"""Files that are written as wholes: none is ever seen under its final name with a part missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from graftkit.errors import FolderError
from graftkit.store.system import NO_LINK, guarded, sync_folder
from graftkit.store.temporaries import held, make_temporary, sweep_of

__all__ = [
    "check_new_file",
    "to_json",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_new",
    "write_new_text",
    "write_text",
]


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file through a temporary sibling, flushed to the disk before it gets its name.

    What a killed process has left that was writing the same file goes first.

    Raises:
        StorageError: The system refused; the old file, if any, is as it was.
    """
    _write(path, write, Path.replace)


def write_new(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file as `write_atomic` does, where there is none: not even one that has come meanwhile.

    Raises:
        FolderError: There is something of that name, which is as it was.
        StorageError: The system refused.
    """
    _write(path, write, _name_new)


def write_new_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, as `write_new` does."""
    write_new(path, lambda file: file.write(text.encode("utf-8")))


def check_new_file(path: Path) -> None:
    """Makes sure before any work that a new file may be written.

    Raises:
        FolderError: There is something of that name, or its folder is missing or can't be written.
    """
    _refuse_existing(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FolderError("there is no such folder to write into", where=str(folder), hint="Make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FolderError("can't be written: Permission denied", where=str(path), hint="Write it elsewhere.")


def _refuse_existing(path: Path) -> None:
    """Makes sure that there is nothing of a name, not even a link that leads nowhere.

    Raises:
        FolderError: There is.
    """
    if os.path.lexists(path):
        raise FolderError("there is such a file already", where=str(path), hint="Give another name.")


def _name_new(temporary: Path, path: Path) -> None:
    """Gives a file a name that nothing has yet, in one step where the file system knows two names of a file.

    Raises:
        FolderError: Something has it by now.
    """
    try:
        _link(temporary, path)
    except FileExistsError:
        _refuse_existing(path)
        raise
    temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        path.open("xb").close()
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise


def _write(path: Path, write: Callable[[IO[bytes]], object], name_it: Callable[[Path, Path], object]) -> None:
    sweep_of(path)
    with guarded(path):
        temporary, handle = make_temporary(path, lambda new: os.open(new, _NEW_FILE, 0o666))
        try:
            with held(temporary):
                with os.fdopen(handle, "wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                name_it(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK | getattr(os, "O_BINARY", 0)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file as `write_atomic` does."""
    write_atomic(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, as `write_atomic` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file as `write_atomic` does."""
    write_text(path, to_json(data))


def to_json(data: Any) -> str:
    r"""Returns indented JSON that ends in a newline; halves of surrogate pairs, as in names of files, are escaped.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have.

    Example:
        >>> print(to_json("\udcff"), end="")
        "\udcff"
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _SURROGATE.sub(lambda found: rf"\u{ord(found[0]):04x}", text)


_SURROGATE = re.compile("[\ud800-\udfff]")
