"""Texts that can be read again, for what can't be done in one pass."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

__all__ = ["spooled"]


@contextmanager
def spooled(texts: Iterable[str]) -> Iterator[Iterable[str]]:
    """Keeps texts in a temporary file, which is gone afterwards.

    Args:
        texts: Iterated once.

    Yields:
        The same texts; may be iterated again and again, one iteration at a time.

    Example:
        >>> with spooled(iter(["a", "b"])) as texts:
        ...     print(list(texts), list(texts))
        ['a', 'b'] ['a', 'b']
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
        yield _Lines(file)


class _Lines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return (json.loads(line) for line in self._file)
