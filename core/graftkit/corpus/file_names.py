"""What the names of data files tell: of which split they are, and whether all parts of a table are there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from graftkit.errors import DataError
from graftkit.interfaces.record_source import PACKED

__all__ = ["SPLITS", "check_one_split", "check_parts", "tells_of"]

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "holdout", "heldout"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What files of a split are called, by the split's name; any other split is called as it is."""

_PART = re.compile(r"(?P<before>.*[-_.])(?P<number>\d{1,9})-of-(?P<count>\d{1,9})(?P<after>.*)", re.ASCII)


def tells_of(name: str, words: Sequence[str]) -> bool:
    """Tells whether one of the words stands in a file's name, or else, where that tells of no split, in a folder's.

    Args:
        name: The file's path within its data set, with slashes.
        words: What files of the split are called.
    """
    *folders, file = name.lower().split("/")
    known = {word for of in SPLITS.values() for word in of} | {*map(str.lower, words)}
    for part in (file, *reversed(folders)):
        said = [word for word in known if re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z])", part)]
        if said:
            return any(word.lower() in said for word in words)
    return False


def check_one_split(names: Sequence[str], folder: str, place: str) -> None:
    """Refuses the files of a folder where their names tell of several splits; those of Markdown are titles.

    Args:
        names: The files' paths within the folder, with slashes.
        folder: The folder.
        place: The place of the request.

    Raises:
        DataError: They are of several splits.
    """
    tables = [name for name in names if not name.lower().endswith(".md")]
    found = {split: [name for name in tables if tells_of(name, words)] for split, words in SPLITS.items()}
    told = [f"{split} ({files[0]})" for split, files in found.items() if files]
    if len(told) > 1:
        example = next(files[0] for files in found.values() if files)
        raise DataError(
            f"the folder has files of several splits: {', '.join(told)}",
            where=place,
            hint=f"Name the files of one, such as {folder}/{example}; or all of them: "
            f"'{folder}/**/*{PurePosixPath(example).suffix}'.",
        )


def check_parts(names: Iterable[str], wanted: Callable[[str], bool], place: str) -> None:
    """Refuses numbered parts of a table (`train-00000-of-00003.parquet`) that are not all there, and tables twice.

    Args:
        names: The files that were chosen, with slashes.
        wanted: Tells whether a file that is not there would have been chosen, too.
        place: The place of the request.

    Raises:
        DataError: A part is missing, parts are of several countings, or a file is there packed and unpacked.
    """
    unpacked: dict[str, str] = {}
    parts: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        plain = name[: -len(PurePosixPath(name).suffix)] if name.lower().endswith(tuple(PACKED)) else name
        if unpacked.setdefault(plain, name) != name:
            hint = "They are probably the same records: name one of them, or a pattern that leaves one out."
            raise DataError(f"a file is there twice: {unpacked[plain]} and {name}", where=place, hint=hint)
        if found := _PART.fullmatch(name):
            parts[found["before"], found["after"]][found["count"]].add(int(found["number"]))
    for (before, after), countings in parts.items():
        if len(countings) > 1:
            told = " and ".join(f"{before}*-of-{count}{after}" for count in sorted(countings))
            hint = "One is probably left over from an earlier upload: name the files of the other."
            raise DataError(f"the parts of a table are counted in several ways: {told}", where=place, hint=hint)
        [(count, numbers)] = countings.items()
        first = 1 if 0 not in numbers and int(count) in numbers else 0
        missing = next(number for number in range(first, len(numbers) + 1 + first) if number not in numbers)
        name = f"{before}{missing:0{len(count)}}-of-{count}{after}"
        if missing < int(count) + first and wanted(name):
            raise DataError(
                f"{name} is missing: {len(numbers):,} of {int(count):,} parts are there",
                where=place,
                hint="Fetch the others; or, to train on those alone, name each, as a list.",
            )
