"""A corpus of plain text in files, which is read in parts at each iteration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.split import drawn
from graftkit.corpus.stretches import STRETCH, read_stretches
from graftkit.corpus.text_paths import find_text_files
from graftkit.errors import DataError
from graftkit.interfaces.record_source import RecordSource
from graftkit.store.fingerprint import fingerprint

__all__ = ["TextFiles", "split_by_file", "text_files"]

_PIECES = 64
_SMALLEST_PIECE = 512


@dataclass(frozen=True, slots=True)
class _Part:
    """A file, or the parts of a file on one side of a split.

    Attributes:
        file: The file: its text, or its records.
        bytes: UTF-8 bytes of its texts.
        sha256: Of its texts.
        size: Bytes of a stretch, about.
        kept: The sha256 of each stretch that counts; None for all of them.
    """

    file: RecordSource | Dataset
    bytes: int
    sha256: str
    size: int = STRETCH
    kept: frozenset[str] | None = None

    def __iter__(self) -> Iterator[str]:
        for text in read_stretches(self.file, self.size):
            if self.kept is None or _sha256(text) in self.kept:
                yield text


class TextFiles:
    """Texts in files, as stretches of moderate size; may be iterated again and again, holding one in memory.

    Made by `text_files`.
    """

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = tuple(parts)

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, sorted."""
        return tuple(_source(part.file).path for part in self._parts)

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all texts together."""
        return sum(part.bytes for part in self._parts)

    @property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the texts alone: not of the files' names or places."""
        sides = [sorted(part.kept) if part.kept else [] for part in self._parts]
        return fingerprint(sorted(zip((part.sha256 for part in self._parts), sides, strict=True)))


RECORDS = frozenset({".jsonl", ".ndjson", ".parquet", ".arrow"})
"""Suffixes of files that are read as records; other files are one text each."""


def text_files(patterns: Sequence[str], open_records: Callable[[Path], Dataset], where: str = "") -> TextFiles:
    """Finds files and reads each once, to judge it and to tell its size.

    Args:
        patterns: Files, folders and patterns, as `find_text_files` takes them. Files whose suffix is one of `RECORDS`
            hold records, any other is UTF-8 text.
        open_records: Opens a file of records.
        where: The place of the request, for errors.

    Raises:
        DataError: A file that is missing, not UTF-8 or malformed, a pattern that matches nothing, or no text in all of
            them.

    Example:
        >>> texts = text_files(["docs/*.md", "src"], open_records)  # doctest: +SKIP
        >>> len(texts.files), texts.bytes  # doctest: +SKIP
        (41, 1048576)
    """
    sources = map(RecordSource, find_text_files(patterns, where))
    files = (open_records(source.path) if source.suffix in RECORDS else source for source in sources)
    parts = [part for file in files if (part := _scanned(file)).bytes]
    if not parts:
        named = ", ".join(patterns[:3])
        raise DataError("there is no text in it", where=f"{where}: {named}" if where else named)
    return TextFiles(parts)


def _source(file: RecordSource | Dataset) -> RecordSource:
    return file.source if isinstance(file, Dataset) else file


def _scanned(file: RecordSource | Dataset) -> _Part:
    """Reads a file; one with white space alone counts as empty."""
    digest, size, blank = hashlib.sha256(), 0, True
    for text in read_stretches(file):
        data = text.encode()
        digest.update(data)
        size += len(data)
        blank = blank and text.isspace()
    return _Part(file, 0 if blank else size, digest.hexdigest())


def split_by_file(texts: TextFiles, share: float, seed: int = 0) -> tuple[TextFiles, TextFiles]:
    """Holds some of the texts out, whole files of them.

    Which ones is decided by their contents and the seed; equal files go to the same side. Where there is one file, or
    copies of one, stretches of it are held out instead.

    Args:
        texts: All texts.
        share: The share of bytes to hold out, more than 0 and at most 0.5; at least the smallest file, never all.
        seed: Draws another set.

    Returns:
        The texts to learn from, and those to judge by.

    Raises:
        DataError: There is a single stretch, of which nothing can be held out, or the share is none.
    """
    if not 0 < share <= 0.5:
        raise DataError(f"a share of {share} can't be held out: say more than 0, and at most 0.5")
    parts = texts._parts
    if len({part.sha256 for part in parts}) == 1:
        return _split_stretches(parts[0], share, seed)
    held = _drawn([(part.sha256, part.bytes) for part in parts], share, seed)
    sides = [[part for part in parts if (part.sha256 in held) is side] for side in (False, True)]
    return TextFiles(sides[0]), TextFiles(sides[1])


def _split_stretches(part: _Part, share: float, seed: int) -> tuple[TextFiles, TextFiles]:
    size = min(STRETCH, max(_SMALLEST_PIECE, part.bytes // _PIECES))
    sizes = {_sha256(text): len(text.encode()) for text in read_stretches(part.file, size)}
    if len(sizes) < 2:
        raise DataError(
            "too little text to hold some of it out", where=str(_source(part.file)), hint="Name more files."
        )
    held = frozenset(_drawn(list(sizes.items()), share, seed))
    sides = [frozenset(sizes) - held, held]
    made = [_Part(part.file, sum(sizes[key] for key in side), part.sha256, size, side) for side in sides]
    return TextFiles(made[:1]), TextFiles(made[1:])


def _drawn(sizes: Sequence[tuple[str, int]], share: float, seed: int) -> set[str]:
    """Returns the keys that are held out, of (key, bytes); a key that comes up twice counts twice."""
    total = sum(size for _, size in sizes)
    keys = {fingerprint([seed, key]): key for key, _ in sizes}
    counts = dict.fromkeys(sorted(keys), 0)
    for key, size in sizes:
        counts[fingerprint([seed, key])] += size
    return {keys[drawn_key] for drawn_key in drawn(counts, max(1, round(share * total)))}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
