"""Splits texts into the lines that SentencePiece's trainer reads, and sorts them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from graftkit.errors import DataError
from graftkit.interfaces.temporary import temporary_folder

__all__ = ["in_order", "sentences"]

_OTHER_ENDS = "\r\0\u2585"
"""Replaced by line ends: \\r, and two characters for which the trainer would skip the whole line."""

_SORTED_AT_ONCE = 2**25
"""Characters that are sorted in memory; more are sorted through temporary files."""


def sentences(texts: Iterable[str], longest: int, *, prefixed: bool) -> Iterator[str]:
    r"""Yields the lines of texts. A line that is too long, which the trainer would skip, is cut, at a space if any.

    Args:
        texts: The corpus.
        longest: The most bytes of a line.
        prefixed: Whether the model adds a leading space, so that the space where a line is cut is left out.

    Raises:
        DataError: A text has a lone surrogate.

    Example:
        >>> list(sentences(["two lines\n\nmore"], 8, prefixed=True))
        ['two', 'lines', 'more']
    """
    return chain.from_iterable(_lines(text, longest, prefixed) for text in texts)


def _lines(text: str, longest: int, prefixed: bool) -> list[str]:
    _check(text)
    for end in _OTHER_ENDS:
        text = text.replace(end, "\n")
    lines = [*filter(None, text.split("\n"))]
    if len(max(lines, key=len, default="")) * 4 <= longest:
        return lines
    return [part for line in lines for part in _cut(line, longest, prefixed)]


def _check(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("a text holds half a surrogate pair, which is no character") from None


def _cut(line: str, longest: int, prefixed: bool) -> Iterator[str]:
    """Yields parts of at most `longest` bytes."""
    data = line.encode()
    while len(data) > longest:
        part = data[:longest].decode(errors="ignore")
        place = part.rfind(" ")
        part = part[:place] if place > 0 else part
        yield part
        data = data[len(part.encode()) + (prefixed and place > 0) :]
    if data:
        yield data.decode()


@contextmanager
def in_order(lines: Iterable[str], at_once: int = _SORTED_AT_ONCE) -> Iterator[Iterator[str]]:
    """Sorts lines by merge sort through temporary files; duplicates stay.

    Args:
        lines: Iterated once, before the block is entered.
        at_once: The most characters held in memory.

    Yields:
        The sorted lines.
    """
    with ExitStack() as stack:
        runs: list[Path] = []
        held: list[str] = []
        size = 0
        for line in lines:
            held.append(line)
            size += len(line) + 1
            if size >= at_once:
                folder = runs[0].parent if runs else stack.enter_context(temporary_folder())
                runs.append(_write(sorted(held), folder / str(len(runs))))
                held, size = [], 0
        held.sort()
        files = [stack.enter_context(run.open(encoding="utf-8", newline="\n")) for run in runs]
        stored = [(line[:-1] for line in file) for file in files]
        yield heapq.merge(held, *stored) if stored else iter(held)


def _write(lines: Iterable[str], path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(chain.from_iterable((line, "\n") for line in lines))
    return path
