"""A file that is one text."""

from __future__ import annotations

from collections.abc import Iterator

from graftkit import Record, RecordSource
from graftkit.errors import DataError
from graftkit.interfaces import samples

__all__ = ["TextFile"]


class TextFile:
    """Reads a file as one record with the column "text"."""

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix is one of texts."""
        return source.suffix in (".txt", ".md")

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields the one record; a text of over 4 MiB as the source itself."""
        yield Record("", lambda: {"text": _text(source)})


def _text(source: RecordSource) -> str | RecordSource:
    text = source.read_text(samples.LONG_TEXT)
    if text is None:
        return source
    if not text.strip():
        raise DataError("the file is empty", where=str(source))
    return text
