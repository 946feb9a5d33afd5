"""Reads the bytes of data files; errors name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from graftkit.errors import DataError

__all__ = ["MAX_LINE", "decode_utf8", "numbered_lines", "read_text", "size_of", "too_long"]

MAX_LINE = 32 << 20
"""The most bytes of a line: as text, each may take four."""


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a `.jsonl` file that are not blank, with their numbers, and without a byte order mark.

    Raises:
        DataError: The file can't be read, or a line is too long to be a row.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 2):
            number += 1
            if len(line) > MAX_LINE + 1:
                raise too_long(f"{path}:{number}")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line.removesuffix(b"\n")


def too_long(where: str) -> DataError:
    """Returns the error for a line that is longer than what is read of it."""
    return DataError(
        f"a line of over {MAX_LINE:,} bytes", where=where, hint="A row is a line: split it, or give the text as a .txt."
    )


def size_of(path: Path) -> int:
    """Returns a file's size in bytes.

    Raises:
        DataError: The file can't be read.
    """
    with _opened(path) as file:
        return file.seek(0, 2)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file; errors of the system become `DataError`s."""
    try:
        if path.exists() and not path.is_file():
            raise DataError("this is no regular file", where=str(path))
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        near = Path.cwd() / path.name
        hint = f"There is {near}: relative paths in a recipe start at its own folder." if near.exists() else ""
        raise DataError("no such file", where=str(path), hint=hint) from None
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=str(path)) from error
    except ValueError:  # a NUL in it
        raise DataError("no file can be called so", where=repr(str(path))) from None


def decode_utf8(raw: bytes, where: str) -> str:
    """Decodes a line.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}",
            where=where,
            hint="Save the file as UTF-8, for example with: iconv -f LATIN1 -t UTF-8",
        ) from None


def read_text(path: Path) -> str:
    """Returns a text file as a whole, without a byte order mark.

    Raises:
        DataError: The file can't be read, is not UTF-8, or is empty.
    """
    with _opened(path) as file:
        raw = file.read()
    for number, line in enumerate(raw.split(b"\n"), 1):
        decode_utf8(line, f"{path}:{number}")
    text = raw.decode("utf-8-sig")
    if not text.strip():
        raise DataError("the file is empty", where=str(path))
    return text
