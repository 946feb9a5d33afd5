"""A JSON array of objects, or an object that holds one."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from graftkit import Record, RecordSource
from graftkit.errors import DataError
from graftkit.interfaces.record_source import MAX_LINE

from graftkit_readers.json_lines import begins_with_a_line
from graftkit_readers.parsed import parse_record

__all__ = ["JsonArray"]

_PART = 1 << 20
_END = re.compile(r'[{}\[\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OPEN_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?\Z', re.DOTALL)
_KEY = re.compile(r'\s*\{\s*("[^"\\]{0,200}")\s*:\s*(?=\[)')


class JsonArray:
    """Reads a JSON array, an element in memory at a time; of an object whose first value is an array, that one."""

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix is one of JSON, and the file is not one of lines."""
        suffix = source.suffix
        return suffix in (".json", ".jsonl", ".ndjson") and not begins_with_a_line(source.head, suffix)

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields a record an element, whose place is its number from 1."""
        with source.open() as file:
            for number, text in enumerate(_elements(_Text(file, source)), 1):
                place = f"#{number}"
                yield Record(place, _parsed(text, f"{source}{place}"))


def _parsed(text: str, where: str) -> Callable[[], Any]:
    return lambda: parse_record(text, where)


class _Text:
    """A file's text, read as it is needed."""

    def __init__(self, file: IO[bytes], source: RecordSource) -> None:
        self._file, self.source = file, source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.ended = "", False

    def more(self) -> bool:
        """Appends what comes next; False at the end."""
        raw = self._file.read(_PART)
        try:
            self.text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError:
            raise self.source.not_utf8() from None
        self.ended = not raw
        return not self.ended

    def skip(self, count: int) -> None:
        """Forgets the first characters."""
        self.text = self.text[count:]

    def next(self) -> str:
        """Returns the next character that is no white space, without taking it; "" at the end."""
        while True:
            self.text = self.text.lstrip(" \t\r\n")
            if self.text:
                return self.text[0]
            if not self.more():
                return ""


def _elements(text: _Text) -> Iterator[str]:
    """Yields the JSON of each element of the array."""
    if text.next() == "{" and (found := _KEY.match(text.text)):
        text.skip(found.end())
    if text.next() != "[":
        raise DataError("no JSON array of records is in it", where=str(text.source), hint=_FORMS)
    text.skip(1)
    number, after = 0, ""
    while (sign := text.next()) != "]":
        if after:
            if sign != ",":
                raise _malformed(text, number, sign)
            text.skip(1)
            sign = text.next()
        number += 1
        if sign != "{":
            raise _malformed(text, number, sign)
        yield (after := _object(text, number))


def _object(text: _Text, number: int) -> str:
    """Takes an object off the text's beginning."""
    depth, place = 0, 0
    while True:
        for sign in _END.finditer(text.text, place):
            found = sign[0]
            depth += (found in "{[") - (found in "]}")
            place = sign.end()
            if not depth:
                whole = text.text[:place]
                text.skip(place)
                return whole
        open_string = _OPEN_STRING.search(text.text, place)
        place = open_string.start() if open_string else len(text.text)
        if len(text.text) > MAX_LINE:
            raise text.source.too_long(f"#{number}")
        if not text.more():
            raise DataError(
                "the file ends in the middle of a record", where=f"{text.source}#{number}", hint="It is cut short."
            )


def _malformed(text: _Text, number: int, sign: str) -> DataError:
    found = "the file ends" if not sign else f"{json.dumps(sign, ensure_ascii=False)} stands"
    return DataError(f"no JSON array of objects: {found} where a record is expected", where=f"{text.source}#{number}")


_FORMS = "A file of records is an array of objects, [{...}, ...], or has an object a line."
