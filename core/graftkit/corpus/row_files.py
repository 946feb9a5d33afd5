"""The rows of some files: validated once, read again at each iteration, never held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.reading import numbered_lines
from graftkit.corpus.row_digest import DIGEST, digest_row
from graftkit.corpus.rows import ChatRow, CompletionRow, LongTextRow, Row, TextRow, row_of_line, rows_of
from graftkit.errors import DataError

__all__ = ["Rows", "scan_rows"]

_KINDS: dict[type[Any], int] = {ChatRow: 0, CompletionRow: 1, TextRow: 2, LongTextRow: 2}
_NAMES = ("chat", "completion", "text")

Digests = NDArray[np.bytes_]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some of the rows of some files, in their order; may be iterated again and again.

    Attributes:
        read: Reads the rows that a mask says, `[all rows]`.
        digests: A digest of each row's content, `[all rows]`: equal rows have equal ones.
        places: What places each row in the draw of holdout rows, `[all rows]`; empty where none is drawn.
        kinds: Each row's shape, `[all rows]`.
        kept: Which of all rows these are, `[all rows]`.
    """

    read: Callable[[Mask], Iterator[Row]]
    digests: Digests
    places: Digests
    kinds: NDArray[np.uint8]
    kept: Mask

    def __len__(self) -> int:
        return int(np.count_nonzero(self.kept))

    def __iter__(self) -> Iterator[Row]:
        return self.read(self.kept)

    def after(self, count: int) -> Iterator[Row]:
        """Yields the rows after the first `count`, which are not parsed."""
        rest = self.kept.copy()
        rest[np.flatnonzero(rest)[:count]] = False
        return self.read(rest)

    def only(self, wanted: Mask) -> Rows:
        """Returns the rows that a mask selects, `[all rows]`."""
        return Rows(self.read, self.digests, self.places, self.kinds, self.kept & wanted)

    def first_chat(self) -> ChatRow | None:
        """Returns the first conversation, without parsing the rows before it."""
        row = next(self.read(self.kept & (self.kinds == _KINDS[ChatRow])), None)
        return row if isinstance(row, ChatRow) else None

    def counts(self) -> dict[str, int]:
        """Returns kind of row -> count."""
        found = np.bincount(self.kinds[self.kept], minlength=len(_NAMES))
        return {name: int(count) for name, count in zip(_NAMES, found, strict=True) if count}

    @property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the rows' contents in their order."""
        return hashlib.sha256(self.digests[self.kept].tobytes()).hexdigest()


def scan_rows(paths: Sequence[Path], seed: int | None = None) -> Rows:
    """Reads every row of some files once, to judge it.

    Args:
        paths: The files.
        seed: Places the rows in a draw of holdout ones; None where none is to be drawn.

    Returns:
        All rows. Of each, a digest and its shape are kept in memory, about 40 bytes.

    Raises:
        DataError: A file can't be read, or a row is none; with file and line.
    """
    digests, places, kinds = bytearray(), bytearray(), bytearray()
    states = {}
    for path in paths:
        for row in rows_of(path):
            if path not in states:
                states[path] = _state(path)
            digest, place = digest_row(row, seed)
            digests += digest
            places += place
            kinds.append(_KINDS[type(row)])

    def read(wanted: Mask) -> Iterator[Row]:
        return _read(paths, states, wanted)

    shapes = np.frombuffer(kinds, np.uint8)
    return Rows(read, np.frombuffer(digests, DIGEST), np.frombuffer(places, DIGEST), shapes, np.ones(len(kinds), bool))


def _state(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _read(paths: Sequence[Path], states: dict[Path, tuple[int, int]], wanted: Mask) -> Iterator[Row]:
    """Reads some rows again; the files must not have changed since they were validated."""
    start = 0
    for path in paths:
        if not wanted[start:].any():
            return
        if _state(path) != states[path]:
            raise DataError("the file has changed since its rows were judged", where=str(path), hint="Start again.")
        for row in _rows_at(path, wanted, start):
            start += 1
            if row is not None:
                yield row


def _rows_at(path: Path, wanted: Mask, start: int) -> Iterator[Row | None]:
    """Yields an item for each row of the file: the row where it is wanted, else None."""
    if path.suffix in (".txt", ".md"):
        yield next(rows_of(path)) if wanted[start] else None
        return
    for place, (number, line) in enumerate(numbered_lines(path), start):
        yield row_of_line(line, f"{path}:{number}") if wanted[place] else None
