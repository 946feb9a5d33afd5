"""From stretches of text to the lines that SentencePiece's trainer takes, whatever order the texts come in."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from graftkit.errors import DataError

__all__ = ["in_order", "sentences"]

_OTHER_ENDS = "\r\0\u2585"
"""What ends a sentence as "\\n" does: another end of a line, and two characters for which the trainer would skip it."""

_SORTED_AT_ONCE = 2**25
"""Characters that are sorted in memory; more go through files."""


def sentences(texts: Iterable[str], longest: int, *, prefixed: bool) -> Iterator[str]:
    r"""Yields the lines of texts; one that the trainer would skip as too long is cut, at a space if it has one.

    Args:
        texts: Stretches of text.
        longest: Bytes of a line at most.
        prefixed: Whether the model puts a space in front of a line, so that one where it was cut is not needed.

    Raises:
        DataError: A text is no Unicode.

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
    """Yields parts of at most `longest` bytes, joined by the spaces that they were cut at."""
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
    """Sorts lines, through files where they are many; how often each comes is kept.

    Args:
        lines: Iterated once, before anything is yielded.
        at_once: Characters that are held in memory.
    """
    with ExitStack() as stack:
        runs: list[Path] = []
        held: list[str] = []
        size = 0
        for line in lines:
            held.append(line)
            size += len(line) + 1
            if size >= at_once:
                folder = Path(runs[0].parent if runs else stack.enter_context(TemporaryDirectory(prefix="graftkit-")))
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
