"""Finds the files of a corpus from paths, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from graftkit.corpus.file_search import files_below, files_matching, own_folders, place_of, sorted_files
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.suggest import nearest

__all__ = ["TEXT_SUFFIXES", "find_data_files", "find_text_files", "unread_files"]

_SUFFIXES = (
    ".bash .c .cc .cfg .clj .cpp .cs .css .csv .cu .dart .ex .exs .go .h .hpp .hs .htm .html .ini .java .jl .js .json "
    ".jsonl .jsx .kt .lua .m .md .ml .mm .ndjson .php .pl .po .proto .ps1 .py .pyi .r .rb .rs .rst .scala .sh .sql "
    ".srt .svg .swift .tex .toml .ts .tsv .tsx .txt .vue .xml .yaml .yml .zig"
)
TEXT_SUFFIXES = frozenset(_SUFFIXES.split())
"""Suffixes of text files; other files of a folder are ignored."""


def find_text_files(patterns: Sequence[str], where: str = "") -> list[Path]:
    """Finds files.

    Args:
        patterns: Files, of any name; folders, for the text files below them; patterns such as "src/**/*.py". What is
            hidden, by a name that starts with a dot, and what a run or an export has written below them is found by
            neither folders nor patterns.
        where: The place of the request, for errors.

    Returns:
        Each file once, sorted: neither the order of the patterns nor that of the file system matters.

    Raises:
        DataError: A file is missing, a path is empty, or a folder or pattern yields none, or is too much to search.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _matches(pattern, where):
            found.setdefault(path.resolve(), path)
    if not found:
        raise DataError("no file is named to read texts from", where=where)
    return [found[key] for key in sorted(found)]


_MAX_STATE = 64 << 20

_ABOUT_DATA = frozenset(
    {"dataset_info.json", "dataset_dict.json", "state.json", "readme.md", "license", "license.txt", "license.md"}
)
"""Files beside data that are none."""


def find_data_files(pattern: str, readable: Callable[[Path], bool], where: str = "") -> list[Path]:
    """Finds files of records.

    Args:
        pattern: A file; a folder, for the files below it that are readable; or a pattern such as "data/*.parquet". What
            is hidden, by a name that starts with a dot, and what a run or an export has written below them is found by
            neither folders nor patterns, and a folder's description of its data is no data. Of a folder that
            `datasets.save_to_disk` wrote, the files that its state.json names.
        readable: Tells whether a file of a folder is one of records.
        where: The place of the request, for errors.

    Returns:
        The files, sorted, or in the order of a state.json.

    Raises:
        DataError: A folder or pattern yields none or is too much to search, a folder holds several saved data sets, or
            a state.json is damaged. A file that is missing is told by whoever opens it.
    """
    try:
        path = Path(pattern)
        if path.is_dir():
            saved = _saved(path, where)
            if saved:
                return saved
            data = (file for file in files_below(path, where) if file.name.lower() not in _ABOUT_DATA)
            found = sorted_files(filter(readable, data), place_of(where, pattern))
            if not found:
                place, hint = place_of(where, pattern), _left_out(pattern)
                raise DataError("there is no file of records in the folder", where=place, hint=hint)
            return found
        if glob.has_magic(pattern) and not path.exists():
            return _matching(pattern, where)
    except (OSError, ValueError):  # too long a name, a NUL in it: whoever opens it says so
        pass
    return [Path(pattern)]


def unread_files(folder: Path, read: Collection[Path]) -> list[str]:
    """Returns the files of a folder that are not read as records, by their paths within it, sorted.

    What is hidden, a description of the data, and what lies beside a saved data set are no such files.

    Args:
        folder: The folder.
        read: The files that are read.
    """
    if (folder / "state.json").is_file():
        return []
    left = (file for file in files_below(folder) if file not in read and file.name.lower() not in _ABOUT_DATA)
    return sorted(file.relative_to(folder).as_posix() for file in left)


def _saved(folder: Path, where: str) -> list[Path]:
    """Returns the files of a data set that `datasets.save_to_disk` wrote, in their order; none where it is no such.

    Beside them may lie copies that were computed from them, in files of the same kind (`cache-*.arrow`).
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = sorted(part.parent.name for part in folder.glob("*/state.json"))
        if not names:
            return []
        raise DataError(
            f"the folder holds several data sets: {', '.join(names)}",
            where=place_of(where, str(folder)),
            hint=f"Name one: {folder / ('train' if 'train' in names else names[0])}",
        )
    state = folder / "state.json"
    if not state.is_file() or not (folder / "dataset_info.json").is_file():
        return []
    try:
        said = parse_json(read_regular(state, _MAX_STATE))
        names, of_rows = [entry["filename"] for entry in said["_data_files"]], said.get("_indices_data_files")
        sound = all(isinstance(name, str) and name == Path(name).name and name not in ("", "..") for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        names, of_rows, sound = [], None, False
    if of_rows:
        raise DataError(
            "the data set was saved with an index, which says which rows of its files are part of it, and is not read",
            where=place_of(where, str(state)),
            hint="With the version of datasets that wrote it: load_from_disk(OLD).flatten_indices().save_to_disk(NEW).",
        )
    if not names or not sound:
        hint = "Save the data set again, or name its files: data-*.arrow."
        raise DataError("the state.json names no files of records", where=place_of(where, str(state)), hint=hint)
    return [folder / name for name in names]


def _matches(pattern: str, where: str) -> list[Path]:
    if not pattern:
        raise DataError("a path of texts is empty", where=where, hint="A dot stands for the folder itself.")
    try:
        path = Path(pattern).expanduser()
        if path.is_dir():
            return _below(path, where)
        if path.is_file():
            return [path]
        if path.exists():
            raise DataError("no regular file; texts are read more than once", where=place_of(where, pattern))
        if glob.has_magic(pattern):
            return _matching(str(path), where)
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, an unknown user's ~
        raise DataError(f"can't be read: {error}", where=place_of(where, pattern)) from None
    near = nearest(path.name, _names_in(path.parent))
    raise DataError("no such file or folder", where=place_of(where, pattern), hint=near.strip())


def _below(folder: Path, where: str) -> list[Path]:
    texts = (path for path in files_below(folder, where) if path.suffix.lower() in TEXT_SUFFIXES)
    found = sorted_files(texts, place_of(where, str(folder)))
    if not found:
        hint = f"Other files are read where a pattern names them: '{folder}/**/*'. {_left_out(str(folder))}".rstrip()
        raise DataError("there is no text file in the folder", where=place_of(where, str(folder)), hint=hint)
    return found


def _matching(pattern: str, where: str) -> list[Path]:
    found = files_matching(pattern, where)
    if not found:
        hint = _left_out(pattern) or (
            "** stands for any folders, * for any part of a name. Quote the pattern, so that the shell leaves it alone."
        )
        raise DataError("no file matches", where=place_of(where, pattern), hint=hint)
    return found


def _left_out(pattern: str) -> str:
    """Returns what to name in place of a folder or pattern that finds nothing, where it leads to runs or exports."""
    own = own_folders(pattern)
    return f"A run or an export wrote {own[0]}: name that folder to read what is in it." if own else ""


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
