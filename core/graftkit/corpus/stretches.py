"""Reads a text file in parts of about 256 KiB, so that a corpus may be larger than the memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from graftkit.corpus.reading import MAX_LINE, decode_utf8
from graftkit.corpus.rows import ChatRow, CompletionRow, LongTextRow, Row, row_of_line
from graftkit.errors import DataError
from graftkit.interfaces.regular_file import open_regular

__all__ = ["STRETCH", "read_stretches", "texts_of"]

STRETCH = 256 << 10
"""Bytes of a stretch, about."""

_BOM = b"\xef\xbb\xbf"


def read_stretches(path: Path, size: int = STRETCH) -> Iterator[str]:
    """Yields a file's text.

    A file of up to `size` bytes is one stretch. A larger one is cut where tokenizers cut it too: between two lines, or
    else between two words, at whatever character only where neither comes up. Each text of a `.jsonl` or `.ndjson` row
    (a message's content, prompt and completion, or text) is a stretch of its own, so that nothing is learnt across
    rows.

    Args:
        path: The file.
        size: Bytes of a stretch, about: up to twice that many, four times where there is no place to cut.

    Raises:
        DataError: The file can't be read or is not UTF-8, or a line is no row; with the line.
    """
    rows = path.suffix.lower() in (".jsonl", ".ndjson")
    return _of_rows(path, size) if rows else _of_text(path, size)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=str(path)) from error


def _of_text(path: Path, size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    with _opened(path) as file:
        while True:
            raw = file.read(size)
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError:
                raise _not_utf8(path) from None
            if not raw:
                break
            cut = _cut(rest, size)
            if cut:
                yield rest[:cut]
            rest = rest[cut:] + text
    if rest:
        yield rest


def _cut(text: str, size: int) -> int:
    """Returns where to cut, or 0 where no place is found yet."""
    line = _last_alone(text, "\n")
    if line:
        return line + 1
    return _last_alone(text, " ") or (len(text) if len(text) >= 3 * size else 0)


def _last_alone(text: str, mark: str) -> int:
    """Finds the last mark without white space beside it, where a cut rarely changes tokens."""
    place = text.rfind(mark, 1, -1)
    while place > 0 and (text[place - 1].isspace() or text[place + 1].isspace()):
        place = text.rfind(mark, 1, place)
    return max(place, 0)


def _not_utf8(path: Path) -> DataError:
    """Finds the line."""
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                decode_utf8(line, f"{path}:{number}")
            except DataError as error:
                return error
    return DataError("not UTF-8", where=str(path))


def _of_rows(path: Path, size: int) -> Iterator[str]:
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            row = row_of_line(line.removeprefix(_BOM) if number == 1 else line, f"{path}:{number}")
            for text in texts_of(row) if row else ():
                yield from _pieces(text, size)


def texts_of(row: Row) -> Iterable[str]:
    """Returns the texts of a row, as far as they are not empty: contents, prompt and completion, or the text.

    A text as long as a file comes in stretches.
    """
    match row:
        case ChatRow(messages):
            texts: Iterable[str] = (message.content for message in messages)
        case CompletionRow(prompt, completion):
            texts = (prompt, completion)
        case LongTextRow(path):
            texts = read_stretches(path)
        case _:
            texts = (row.text,)
    return (text for text in texts if text)


def _pieces(text: str, size: int) -> Iterator[str]:
    while len(text) > 2 * size:
        cut = _cut(text[: 2 * size], 0)
        yield text[:cut]
        text = text[cut:]
    yield text
