"""Texts that can be iterated more than once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from graftkit.interfaces.temporary import temporary_folder

__all__ = ["spooled"]


@contextmanager
def spooled(texts: Iterable[str]) -> Iterator[Iterable[str]]:
    """Writes texts to a temporary file, which is deleted at the end of the block.

    Args:
        texts: Iterated once, before the block is entered.

    Yields:
        The same texts; may be iterated any number of times, one iteration at a time.

    Example:
        >>> with spooled(iter(["a", "b"])) as texts:
        ...     print(list(texts), list(texts))
        ['a', 'b'] ['a', 'b']
    """
    with temporary_folder() as folder, (folder / "texts").open("w+", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
        yield _Lines(file)


class _Lines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return (json.loads(line) for line in self._file)
