"""Saves a tokenizer in a folder of its own, with a record of how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError, RequestError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.option_names import option
from graftkit.store.file_hashes import file_facts, is_another
from graftkit.store.files import write_json
from graftkit.store.folders import atomic_folder, new_folder
from graftkit.store.temporaries import sweep_of
from graftkit.suggest import known_names

__all__ = ["check_folder", "check_formats", "save_tokenizer_folder"]

RECORDS = ("extension.json", "training.json")
"""Names of the record: how the tokenizer was made, and its files."""


def check_formats(asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns the formats to save in: those asked for, or else a backend's first one.

    Raises:
        RequestError: One that the backend does not write.
    """
    for format in asked:
        if format not in known:
            raise RequestError(f"no format is called '{format}'", where="--format", hint=known_names(format, known))
    return list(dict.fromkeys(asked)) or [known[0]]


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Checks before any work that a tokenizer may be saved in a folder.

    What a killed command has left that was writing the same folder goes; the tokenizer that it was replacing is put
    back.

    Raises:
        FolderError: The folder can't be written, has a tokenizer and `overwrite` is False, or has other files.
    """
    parent = folder.absolute().parent
    sweep_of(folder.absolute())
    try:
        if folder.is_symlink() and not folder.exists():
            raise FolderError("it is a link to nothing", where=str(folder), hint=f"Give a folder with {option('out')}.")
        if not folder.exists():
            parent.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise FolderError("it is a file", where=str(folder), hint=f"Give a folder with {option('out')}.")
        present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_file_or_link(path)}
    except OSError as error:
        raise FolderError(f"can't be written: {error.strerror}", where=str(folder)) from error
    if not os.access(parent, os.W_OK | os.X_OK):
        hint = f"The folder around it must be writable: write elsewhere with {option('out')}."
        raise FolderError("can't be written: Permission denied", where=str(folder), hint=hint)
    if present and not overwrite:
        hint = f"Give another folder with {option('out')}, or replace a tokenizer with {option('overwrite')}."
        raise FolderError("it is not empty", where=str(folder), hint=hint)
    strange = sorted(present - _own(folder))
    if strange:
        shown = ", ".join(strange[:3])
        raise FolderError(
            f"it holds files that no `toolkit tokenizer` wrote, or that were edited since: {shown}",
            where=str(folder),
            hint=f"Overwriting would delete them: move them away, or give another folder with {option('out')}.",
        )


def _is_file_or_link(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _own(folder: Path) -> set[str]:
    """Returns the names of the records in a folder, and of the files that are as a record lists them."""
    own: set[str] = set()
    for name in RECORDS:
        try:
            listed = parse_json(read_regular(folder / name))["files"].items()
            own |= {name, *(file for file, facts in listed if not is_another(folder / file, facts))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return own


def save_tokenizer_folder(
    folder: Path,
    tokenizer: Tokenizer,
    formats: Iterable[str],
    record: str,
    facts: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Writes the tokenizer in each format, and the record; the folder appears as a whole or not at all.

    Args:
        folder: Where to, or a link that leads there; a tokenizer that `check_folder` allows to replace is replaced.
        tokenizer: The tokenizer.
        formats: Names that its `save` takes.
        record: The record's file name.
        facts: The record, as JSON; the list of files is added.
        overwrite: As for `check_folder`.

    Raises:
        FolderError: The folder was filled since `check_folder`.
        StorageError: The system refused.
        RequestError: The tokenizer can't be saved in one of the formats.
    """
    place = folder.resolve() if folder.is_symlink() else folder
    with (atomic_folder if overwrite else new_folder)(place) as temporary:
        for format in formats:
            tokenizer.save(temporary, format)
        write_json(temporary / record, {**facts, "files": file_facts(temporary)})
        check_folder(folder, overwrite=overwrite)
