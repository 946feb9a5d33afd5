"""Every write of the project: nothing half-written is ever visible under its final name."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from graftkit.errors import FolderError, StorageError

__all__ = [
    "NO_LINK",
    "TEMPORARY",
    "atomic_folder",
    "check_new_file",
    "guarded",
    "held",
    "is_temporary",
    "make_folder",
    "new_folder",
    "open_in_place",
    "remove_tree",
    "replace_folder",
    "sweep",
    "sweep_of",
    "sync_folder",
    "temporary_prefix",
    "to_json",
    "write_atomic",
    "write_bytes",
    "write_json",
    "write_new",
    "write_new_text",
    "write_text",
]

Made = TypeVar("Made")

TEMPORARY = re.compile(r"\.([^/]+)\.graftkit-[a-z0-9_]{8}\.(partial|old)")
"""Names of what is being written, and of what it replaces: a kill leaves them, and `sweep` removes them.

They have a word of graftkit's own: people call what they keep `.recipe.yaml.20261128.old`.
"""

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


def temporary_prefix(name: str) -> str:
    """Returns what the name of a temporary sibling begins with; eight random characters and its ending follow."""
    return f".{name}.graftkit-"


def is_temporary(name: str) -> bool:
    """Whether a relative path is that of something half-written, or lies in it."""
    return any(TEMPORARY.fullmatch(part) for part in name.split("/"))


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
        temporary, handle = _made(path, lambda new: os.open(new, _NEW_FILE, 0o666))
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


def _made(path: Path, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """Makes a temporary sibling, which gets its permissions from the system, as anything that the user makes there.

    Reading the umask would set it, for all threads, and setting permissions takes what a folder's ACL gives.
    """
    while True:
        temporary = path.parent / f"{temporary_prefix(path.name)}{secrets.token_hex(4)}.partial"
        try:
            return temporary, make(temporary)
        except FileExistsError:
            continue


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
        temporary, _ = _made(path, Path.mkdir)
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


def remove_tree(folder: Path) -> None:
    """Deletes a folder with all that is in it.

    Raises:
        StorageError: The system refused.
    """
    with guarded(folder):
        shutil.rmtree(folder)


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
