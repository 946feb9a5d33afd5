"""Tables as text: csv, tsv."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from graftkit import Record, RecordSource
from graftkit.errors import DataError
from graftkit.interfaces.record_source import MAX_LINE, decode_utf8
from graftkit.interfaces.yaml_word import yaml_word

from graftkit_readers.config import DelimitedConfig
from graftkit_readers.limits import MOST_COLUMNS
from graftkit_readers.lists_in_text import list_in_text

__all__ = ["Delimited"]


_MOST_DELIMITERS = 1_000_000
"""Delimiters of a row: a value of a character or two takes sixty bytes."""

_END_OF_FILE = b"\x1a"
"""Ctrl-Z, with which programs for DOS end a text."""


class Delimited:
    """Reads a table whose first line has its columns' names, as RFC 4180 writes it; quoted values may hold line ends.

    Every value is text, unless its column is said to hold lists; an empty one is the empty text. A row without any
    value, as spreadsheets write an empty one, is a blank line.

    Args:
        config: Its fields.
    """

    def __init__(self, config: DelimitedConfig) -> None:
        self._delimiter, self._lists = config.delimiter, config.lists

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix is one of tables."""
        return source.suffix in (".csv", ".tsv")

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields a record a row; its place is the line that it begins on."""
        delimiter = self._delimiter or _delimiter(source)
        lines = _Lines(source, delimiter)
        csv.field_size_limit(MAX_LINE)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            names = _named(next(rows, []), source)
            lacking = next((name for name in self._lists if name not in names), None)
            if lacking is not None:
                told = f"reader.lists names '{lacking[:60]}', and no column is called so"
                raise DataError(told, where=f"{source}:1", hint=f"Its columns: {', '.join(names[:20])}.")
            lines.row_ended()
            for row in rows:
                place = f":{lines.began}"
                lines.row_ended()
                if any(row):
                    yield Record(place, _Row(names, row, f"{source}{place}", self._lists).load)
        except csv.Error as error:
            raise DataError(f"no table: {error}", where=f"{source}:{lines.number}") from None


class _Lines:
    """The lines of a file as text, with their line ends, blank ones too, since they may stand in a quoted value.

    A row over several lines is held to the same bounds as one on a single line: the values of a row are all made at
    once.

    Attributes:
        number: The line that was read last.
        began: The line on which the present row begins.
    """

    def __init__(self, source: RecordSource, delimiter: str) -> None:
        self._source, self._delimiter = source, delimiter.encode()
        self.number, self.began = 0, 1
        self._bytes = self._delimiters = 0

    def row_ended(self) -> None:
        """Begins to count anew: the next line is another row's."""
        self.began = self.number + 1
        self._bytes = self._delimiters = 0

    def __iter__(self) -> Iterator[str]:
        with self._source.open() as file:
            while line := file.readline(MAX_LINE + 2):
                self.number += 1
                self._check(line)
                text = decode_utf8(line, f"{self._source}:{self.number}")
                yield text.removeprefix("\ufeff") if self.number == 1 else text

    def _check(self, line: bytes) -> None:
        if b"\0" in line or line.strip() == _END_OF_FILE:
            found = "zero bytes, as where a part of a file is lost" if b"\0" in line else "nothing but Ctrl-Z"
            hint = "Write the file anew; or, where nothing is missing, take them out."
            raise DataError(f"the line holds {found}", where=f"{self._source}:{self.number}", hint=hint)
        self._bytes += len(line)
        self._delimiters += line.count(self._delimiter)
        if self._bytes > MAX_LINE + 1:
            raise self._source.too_long(f":{self.began}")
        if self._delimiters > _MOST_DELIMITERS:
            raise DataError(
                f"the row has over {_MOST_DELIMITERS:,} delimiters, those in its texts among them",
                where=f"{self._source}:{self.began}",
                hint="Split it; or write the records as JSON, an object a line.",
            )


class _Row:
    def __init__(self, names: Sequence[str], values: Sequence[str], where: str, lists: Sequence[str]) -> None:
        self._names, self._values, self._where, self._lists = names, values, where, lists

    def load(self) -> dict[str, Any]:
        """Returns the columns.

        Raises:
            DataError: There are more or fewer values than columns, or one that is to be a list is none.
        """
        if len(self._values) != len(self._names):
            raise DataError(
                f"the row has {len(self._values)} values, the first line names {len(self._names)} columns",
                where=self._where,
                hint='A value with the delimiter, a quote or a line end in it stands in quotes: "a, b".',
            )
        row: dict[str, Any] = dict(zip(self._names, self._values, strict=True))
        return row | {name: list_in_text(row[name], name, self._where) for name in self._lists}


def _named(names: Sequence[str], source: RecordSource) -> list[str]:
    """Returns the columns' names; one without a name, as of row numbers, is called by its place, "column 1".

    White space around a name is none of it.

    Raises:
        DataError: The first line names no column, or one twice.
    """
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"the first line names {len(names):,} columns; at most {MOST_COLUMNS:,} are read", where=f"{source}:1"
        )
    if re.match(r"[\[{\s]*\{\s*\"", names[0] if names else ""):
        reader = "json" if names[0].lstrip().startswith("[") else "jsonl"
        hint = f"If it is JSON, say so: {{path: {yaml_word(source.path.name)}, reader: {reader}}}."
        raise DataError("the first line is JSON, and names no columns", where=f"{source}:1", hint=hint)
    named = [name.strip() or f"column {place}" for place, name in enumerate(names, 1)]
    if not any(name.strip() for name in names):
        raise DataError("there is no row in it", where=str(source))
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        hint = "The first line of a table names its columns."
        raise DataError(f"two columns are called '{twice[0]}'", where=f"{source}:1", hint=hint)
    return named


def _delimiter(source: RecordSource) -> str:
    """Returns what separates the names in the first line: a tab, else the most frequent of comma, semicolon and bar."""
    line = source.head.partition(b"\n")[0]
    if source.suffix == ".tsv" or (b"\t" in line and b"," not in line):
        return "\t"
    return max(",;|", key=lambda sign: line.count(sign.encode()))
