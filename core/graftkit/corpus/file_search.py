"""Searches folders for files, by patterns too, so that every search ends."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from graftkit.errors import DataError
from graftkit.interfaces.regular_file import open_regular
from graftkit.wildcards import pattern_of

__all__ = ["MOST_FOUND", "MOST_VISITED", "files_below", "files_matching", "own_folders", "place_of", "sorted_files"]

MOST_VISITED = 1_000_000
"""Files and folders that one search looks at: some ten seconds' worth."""
MOST_FOUND = 500_000
"""Files that one search gives."""

_LONGEST = 4096
"""Characters of a pattern: as many as a path may have."""

_ANY_FOLDERS = "**"

_MANIFESTS = ("manifest.json", "graftkit.json")
"""What a run and an export each have in their folder."""
_OF_GRAFTKIT = re.compile(rb'\s*\{\s*"graftkit"\s*:\s*"')
"""How both begin."""


def files_below(folder: Path, where: str = "") -> Iterator[Path]:
    """Yields the regular files of a folder and of the folders in it, but hidden ones and those of runs and exports.

    Links to files are followed, links to folders aren't. What a run has written below the folder is no part of what
    lies there: else its model card would be a text of the next run, and what it learns would depend on who ran before.

    Args:
        folder: The folder.
        where: The place of the request, for errors.

    Raises:
        DataError: There is more to look at than a search may take.
    """
    yield from map(Path, _search(str(folder), (_ANY_FOLDERS, "*"), place_of(where, str(folder)), links=False))


def files_matching(pattern: str, where: str = "") -> list[Path]:
    """Returns the regular files that a pattern matches, sorted, as `glob.glob` finds them with `recursive`.

    `**` goes through links to folders, but not to one that it is in already, and into no folder of a run or an export:
    a pattern that names the folder finds what is in it.

    Args:
        pattern: The pattern: `*`, `?` and `[...]` within a name, `**` for any folders.
        where: The place of the request, for errors.

    Raises:
        DataError: There is more to look at, or more is found, than a search may take; or the pattern is too long.
    """
    if len(pattern) > _LONGEST:
        raise DataError(f"a path or pattern has at most {_LONGEST:,} characters", where=place_of(where, pattern))
    place = place_of(where, pattern)
    return sorted_files(map(Path, _search(*_parts_of(pattern), place, links=True)), place)


def own_folders(pattern: str) -> list[str]:
    """Returns the folders of runs and exports that `files_below` and `files_matching` leave out, sorted.

    Args:
        pattern: The folder or pattern that is searched.
    """
    folder, own = os.path.isdir(pattern), set[str]()  # noqa: PTH112 (a pattern may be no path at all)
    root, parts = (pattern, (_ANY_FOLDERS, "*")) if folder else _parts_of(pattern)
    if _ANY_FOLDERS not in parts:  # what is named is found
        return []
    for _ in _search(root, parts, place_of("", pattern), links=not folder, own=own):
        pass
    return sorted(own)


def _parts_of(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Returns where the search for a pattern begins, and its parts."""
    path = Path(pattern)
    return (path.anchor, path.parts[1:]) if path.anchor else ("", path.parts)


def sorted_files(found: Iterable[Path], place: str) -> list[Path]:
    """Returns the files that a search found, each once, sorted.

    Raises:
        DataError: They are more than a search may give.
    """
    files: set[Path] = set()
    for path in found:
        files.add(path)
        if len(files) > MOST_FOUND:
            hint = "Name fewer, or put them together in larger files."
            raise DataError(f"over {MOST_FOUND:,} files are found", where=place, hint=hint)
    return sorted(files)


def place_of(where: str, pattern: str) -> str:
    """Returns the place that an error about a path or pattern names."""
    shown = pattern if pattern.isprintable() else repr(pattern)
    return f"{where}: {shown}" if where else shown


def _search(
    root: str, parts: tuple[str, ...], place: str, *, links: bool, own: set[str] | None = None
) -> Iterator[str]:
    """Yields the files that the parts of a pattern lead to from a folder; one may come several times.

    Folders of runs and exports that `**` does not go into are added to `own`.

    Folders wait on a stack with the parts that are left and the identities of those that `**` went through, so that
    neither a deep tree nor a link to a folder above needs more than what is counted.
    """
    visited, found = 0, 0
    waiting: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [(root, parts, frozenset())]
    while waiting:
        folder, (part, *others), above = waiting.pop()
        rest = tuple(others)
        entries: list[os.DirEntry[str]] | None = None
        if part == _ANY_FOLDERS or glob.has_magic(part):
            entries = _entries(folder)
            visited += len(entries)
            if visited > MOST_VISITED:
                raise DataError(
                    f"over {MOST_VISITED:,} files and folders were looked at, of which {found:,} are files that are "
                    "asked for: this is too much to search",
                    where=place,
                    hint="Name the files, or a folder nearer to them.",
                )
        if part == _ANY_FOLDERS:
            passed = above | _identity(folder)
            inside = _folders_in(entries or (), passed, links=links)
            left = {path for path in inside if _is_written_by_graftkit(path)}
            waiting += [(path, (part, *rest), passed) for path in inside if path not in left]
            if own is not None:
                own |= left
            while rest[:1] == (_ANY_FOLDERS,):
                rest = rest[1:]
            part, rest = rest[0] if rest else "*", rest[1:]
        reached = _named(folder, part, entries or ())
        if rest:
            waiting += [(path, rest, above) for path in reached if os.path.isdir(path)]  # noqa: PTH112
            continue
        for path in reached:
            if os.path.isfile(path):  # noqa: PTH113 (no pipe, which would be waited for, nor a broken link)
                found += 1
                yield path


def _folders_in(entries: Iterable[os.DirEntry[str]], passed: frozenset[tuple[int, int]], *, links: bool) -> list[str]:
    """Returns the folders among a folder's entries that `**` goes on in: no hidden ones, nor those it is in already."""
    shown = (entry for entry in entries if not entry.name.startswith(".") and _is_folder(entry, links=links))
    return [entry.path for entry in shown if not _identity(entry.path) <= passed]


def _is_written_by_graftkit(folder: str) -> bool:
    """Tells whether a folder is that of a run or of an export, by how the manifest in it begins."""
    for name in _MANIFESTS:
        try:
            with open_regular(Path(folder, name)) as file:
                if _OF_GRAFTKIT.match(file.read(100) or b""):
                    return True
        except OSError:
            continue
    return False


def _named(folder: str, part: str, entries: Iterable[os.DirEntry[str]]) -> list[str]:
    """Returns what a part of a pattern means in a folder: what it names, be it there or not, or entries that match."""
    if not glob.has_magic(part):
        return [os.path.join(folder, part)]  # noqa: PTH118 (a text: there may be a million of them)
    matching, hidden = pattern_of(part).match, part.startswith(".")
    return [entry.path for entry in entries if matching(entry.name) and (hidden or not entry.name.startswith("."))]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, one more than a search may look at at most; nothing where it can't be read."""
    try:
        with os.scandir(folder or ".") as found:
            return [entry for entry, _ in zip(found, range(MOST_VISITED + 1), strict=False)]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str], *, links: bool) -> bool:
    return entry.is_dir(follow_symlinks=False) or (links and entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _identity(path: str) -> frozenset[tuple[int, int]]:
    """Returns what tells one folder from all others, or nothing where it can't be looked at."""
    try:
        facts = os.stat(path or ".")  # noqa: PTH116
    except OSError:
        return frozenset()
    return frozenset([(facts.st_dev, facts.st_ino)])
