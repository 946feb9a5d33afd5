"""Records that a program hands in, in the place of files: they become files, since records are read many times."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graftkit.arguments import check_several
from graftkit.errors import DataError, GraftkitError, RecipeError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.store.file_hashes import sha256_of
from graftkit.store.files import write_atomic, write_json
from graftkit.store.system import guarded, make_folder

__all__ = [
    "RECORDS",
    "Handed",
    "KeptForAPlan",
    "Rows",
    "as_handed",
    "handed_for_a_plan",
    "keep_records",
    "naming_rows",
    "rows_of",
    "same_records",
    "words_beside",
]

RECORDS = "records"
"""The folder in a run's that they are kept in."""

Rows = Iterable[Mapping[str, Any]]
"""Records: mappings of columns to what JSON can hold."""

Handed = Mapping[str, Path]
"""The file of the records that were handed in as "train", and of those as "holdout"."""


def rows_of(train: Rows | None, holdout: Rows | None) -> dict[str, Rows]:
    """Returns the records that were handed in, by the key of the recipe's `data` that they stand for.

    Raises:
        DataError: Something else was handed in.
    """
    found = {key: rows for key, rows in (("train", train), ("holdout", holdout)) if rows is not None}
    for key, rows in found.items():
        hint = 'Give a list of mappings, such as {"text": "..."}, or what yields them.'
        check_several(rows, key, "records", hint, DataError)
    return found


def keep_records(rows: Mapping[str, Rows], folder: Path) -> dict[str, Path]:
    """Writes records as files, a line of JSON each, and returns those, whose paths begin at the root.

    Args:
        rows: The records; each is taken once, and none is kept in memory.
        folder: Where to.

    Raises:
        DataError: One is no mapping, or holds what JSON can't.
        StorageError: The system refused.
    """
    with guarded(folder):
        make_folder(folder)
    kept = {}
    for key, given in rows.items():
        kept[key] = _file_of(key, folder)
        with _errors_of_the_caller():
            lines = _lines(key, given)
            write_atomic(kept[key], lambda file, lines=lines: file.writelines(lines))  # type: ignore[misc]
        words = _words_of(given)
        if words:
            write_json(_beside(kept[key]), words)
    return kept


def words_beside(path: Path) -> dict[str, list[str]]:
    """Returns the words that numbers of columns stand for in records that were handed in, from 0 on.

    Args:
        path: The file that they became; of any other there are none.
    """
    beside = _beside(path)
    if path.suffix != ".jsonl" or not beside.is_file():
        return {}
    try:
        found = parse_json(read_regular(beside, _MOST_WORDS))
    except (OSError, ValueError):
        return {}
    return _words_in(found) if isinstance(found, Mapping) else {}


_MOST_WORDS = 1 << 22
"""Bytes of the words for numbers at most."""


def _beside(path: Path) -> Path:
    """Returns the hidden file, which no reader takes for records, of the words for a file's numbers."""
    return path.with_name(f".{path.stem}.words.json")


def _words_of(rows: Rows) -> dict[str, list[str]]:
    """Returns the words for numbers that a `datasets.Dataset` keeps as its features: of labels, or of lists of them."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return {}
    within = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return _words_in({name: getattr(feature, "names", None) for name, feature in within.items()})


def _words_in(found: Mapping[Any, Any]) -> dict[str, list[str]]:
    """Returns the columns that have words for numbers, and those."""
    return {
        name: [*words]
        for name, words in found.items()
        if isinstance(name, str) and isinstance(words, list) and all(isinstance(word, str) for word in words)
    }


def _file_of(key: str, folder: Path) -> Path:
    """Returns the file of records as the run's manifest names it, by which the run goes on and is exported from."""
    return folder.absolute() / f"{key}.jsonl"


def same_records(rows: Mapping[str, Rows], folder: Path) -> dict[str, Path]:
    """Returns the files of a run that goes on, of which each holds the records that are handed in now.

    Raises:
        RecipeError: One does not.
    """
    kept = {key: _file_of(key, folder) for key in rows}
    for key, given in rows.items():
        digest = hashlib.sha256()
        with _errors_of_the_caller():
            for line in _lines(key, given):
                digest.update(line)
        same = kept[key].is_file() and digest.hexdigest() == sha256_of(kept[key])
        if not same or _words_of(given) != words_beside(kept[key]):
            raise RecipeError(
                "the records that are handed in are not those that the run was started with",
                where=key,
                hint="Hand in the same ones, in the same order, or start anew in another folder.",
            )
    return kept


class KeptForAPlan:
    """Records that are kept as files as long as this object is.

    Attributes:
        files: The files.
    """

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="graftkit-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.files = keep_records(rows, folder)


def handed_for_a_plan(train: Rows | None, holdout: Rows | None) -> KeptForAPlan | None:
    """Keeps records for a plan, which reads them when it is asked; None where none are handed in."""
    rows = rows_of(train, holdout)
    return KeptForAPlan(rows) if rows else None


def as_handed(told: str, files: Handed) -> str:
    """Returns a text that names records by what they were handed in as, where it names the files that they became.

    Args:
        told: The text.
        files: The files.
    """
    for key, path in files.items():
        told = told.replace(str(path), key)
    return told


@contextmanager
def naming_rows(files: Handed) -> Iterator[None]:
    """Makes errors name a record as the caller knows it: "train:12" is the twelfth that was handed in as `train`.

    What a hint offers for the recipe's entry of a file is offered for `data.train` or `data.holdout` without its path.
    Records to evaluate have no such entry.
    """
    try:
        yield
    except GraftkitError as error:
        error.where = as_handed(error.where, files)
        for key, path in files.items():
            if f"{{path: {path.name}" in error.hint:
                entry = error.hint.replace(f"{{path: {path.name}, ", "{")
                error.hint = f"{entry} The recipe says it as data.{key}." if key in _ENTRIES else _AS_A_FORMAT
        raise


_ENTRIES = ("train", "holdout")
"""Records of which the recipe may say how they are read."""

_AS_A_FORMAT = (
    'Hand records in with the columns of a format, such as {"question": "...", "answer": "..."}, '
    "and without those that have nothing to learn."
)


def _lines(key: str, rows: Rows) -> Iterator[bytes]:
    for number, row in enumerate(_taken(rows), 1):
        where = f"{key}:{number}"
        if not isinstance(row, Mapping):
            raise DataError(
                f"the record is of the type {type(row).__name__}, and no mapping", where=where, hint=_A_RECORD
            )
        unnamed = [name for name in row if not isinstance(name, str)]
        if unnamed:
            told = f"the record has a column that is called {unnamed[0]!r:.60}, which is no text"
            raise DataError(told, where=where, hint=_CELLS)
        try:
            yield json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            told = f"the record can't be written as JSON: {_column_of(row)}{error}"
            raise DataError(told, where=where, hint=_VALUES) from None


_A_RECORD = (
    'A record is a mapping of columns, such as {"text": "..."}: of a table hand in its rows as such, of a pandas frame '
    'frame.to_dict("records"), of several splits one. A file is named in the recipe, as data: {train: FILE}.'
)
_VALUES = (
    "A column holds texts, numbers, lists and mappings, or None where there is nothing: NaN, as pandas has it there, "
    "becomes None or is left out."
)

_CELLS = "csv.DictReader calls cells so that have no column: the row has a delimiter too many, or lacks a quote."


def _column_of(row: Mapping[Any, Any]) -> str:
    """Returns the name of the first column that can't be written, with a colon; nothing where none is found."""
    with suppress(Exception):  # a class of the program's own may raise
        for name, value in row.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                return f"{name}: "
    return ""


class _OfTheCaller(Exception):
    """An error of the program's own iterator, which is no failure to write."""

    def __init__(self, error: OSError) -> None:
        self.error = error


def _taken(rows: Rows) -> Iterator[Any]:
    try:
        yield from rows
    except OSError as error:
        raise _OfTheCaller(error) from None


@contextmanager
def _errors_of_the_caller() -> Iterator[None]:
    try:
        yield
    except _OfTheCaller as found:
        raise found.error from None
