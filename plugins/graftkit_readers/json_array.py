"""A JSON array of objects, an object that holds one, or objects one after the other."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from graftkit import Record, RecordSource
from graftkit.errors import DataError
from graftkit.interfaces.record_source import MAX_LINE

from graftkit_readers.json_lines import begins_with_a_line, holds_records
from graftkit_readers.parsed import parse_record

__all__ = ["JsonArray"]

_PART = 1 << 20
_SIGN = re.compile(r'[{}\[\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
"""A bracket, or a string with what closes it: nothing where it goes on in the next part of the file."""
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_LONGEST_KEY = 256
_LIST = re.compile(r'(?<!\\)"\s*:\s*\[\s*\{')
"""The beginning of a list of objects that is a value."""
_KEY = re.compile(r'\s*\{\s*("[^"\\]{0,200}")\s*:\s*(?=\[)')


class JsonArray:
    """Reads a JSON array, an element in memory at a time; of an object whose first value is an array, that one.

    Objects that stand one after the other, each over several lines, are records, too; so is a single one whose first
    value is a list of messages.
    """

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
    """A file's text, read as it is needed.

    Attributes:
        text: The part of it that is in memory.
        at: How much of that has been taken: it is forgotten when more is read, not with every element.
        ended: Whether there is no more.
    """

    def __init__(self, file: IO[bytes], source: RecordSource) -> None:
        self._file, self.source = file, source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Appends what comes next; False at the end."""
        raw = self._file.read(_PART)
        try:
            self.text = self.text[self.at :] + self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError:
            raise self.source.not_utf8() from None
        self.at, self.ended = 0, not raw
        return not self.ended

    def skip(self, count: int) -> None:
        """Takes the next characters."""
        self.at += count

    def next(self) -> str:
        """Returns the next character that is no white space, without taking it; "" at the end."""
        while True:
            found = _NO_SPACE.search(self.text, self.at)
            self.at = found.start() if found else len(self.text)
            if found:
                return found[0]
            if not self.more():
                return ""


def _elements(text: _Text) -> Iterator[str]:
    """Yields the JSON of each element of the array, or of each object where there is none."""
    inside = text.next() == "{"
    if inside:
        found = _KEY.match(text.text, text.at) if holds_records(text.source.head) else None
        if found is None:
            yield from _objects(text)
            return
        text.skip(found.end() - text.at)
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
    text.skip(1)
    _check_end(text, number, inside=inside)


def _objects(text: _Text) -> Iterator[str]:
    number = 0
    while sign := text.next():
        number += 1
        if sign != "{":
            raise _malformed(text, number, sign)
        yield _object(text, number)


def _check_end(text: _Text, number: int, *, inside: bool) -> None:
    """Refuses what stands after the array: more of such arrays are records that would be lost.

    Args:
        text: The text after the array's closing bracket.
        number: How many records were in it.
        inside: Whether the array is a value of an object, after which there may be others that are no lists of objects.

    Raises:
        DataError: There is more.
    """
    if inside:
        _take_rest_of_object(text)
    if text.next():
        raise DataError(f"more stands after the array of {number:,} records", where=str(text.source), hint=_FORMS)


def _take_rest_of_object(text: _Text) -> None:
    """Takes what follows the list of records in the object that holds it, up to its closing brace.

    Raises:
        DataError: There is another list of records, or the file ends before the object does.
    """
    depth, seen = 1, text.at  # signs before the place are counted; what may be the beginning of a list is kept
    while True:
        if _LIST.search(text.text, text.at):
            hint = "Make each list a file of its own: jq '.NAME' FILE > NAME.json"
            raise DataError("the object holds more than one list of records", where=str(text.source), hint=hint)
        for sign in _SIGN.finditer(text.text, seen):
            if sign[0][0] == '"':
                if sign[1]:
                    continue
                seen = sign.start()  # brackets in it are none of the object's
                break
            depth += 1 if sign[0] in "{[" else -1
            if not depth:
                text.at = sign.end()
                return
        else:
            seen = len(text.text)
        if len(text.text) - seen > MAX_LINE:
            raise text.source.too_long("")
        kept = max(text.at, min(seen, len(text.text) - _LONGEST_KEY))
        text.at, seen = kept, seen - kept
        if not text.more():
            raise DataError(
                "the file ends in the middle of the object that holds its records",
                where=str(text.source),
                hint="It is cut short.",
            )


def _object(text: _Text, number: int) -> str:
    """Takes an object off the text's beginning."""
    depth, place = 0, 0  # the place counts from where the object begins
    while True:
        for sign in _SIGN.finditer(text.text, text.at + place):
            found = sign[0]
            place = sign.end() - text.at
            if found[0] == '"':
                if sign[1]:
                    continue
                place = sign.start() - text.at  # brackets in it are none of the object's
                break
            depth += 1 if found in "{[" else -1
            if not depth:
                whole = text.text[text.at : sign.end()]
                text.skip(place)
                return whole
        else:
            place = len(text.text) - text.at
        if len(text.text) - text.at > MAX_LINE:
            raise text.source.too_long(f"#{number}")
        if not text.more():
            raise DataError(
                "the file ends in the middle of a record", where=f"{text.source}#{number}", hint="It is cut short."
            )


def _malformed(text: _Text, number: int, sign: str) -> DataError:
    found = "the file ends" if not sign else f"{json.dumps(sign, ensure_ascii=False)} stands"
    return DataError(
        f"no JSON array of objects: {found} where a record is expected",
        where=f"{text.source}#{number}",
        hint=_HINTS.get(sign, ""),
    )


_HINTS = {
    "[": "Where each list is a conversation: jq -c '.[] | {messages: .}' FILE > records.jsonl",
    "]": "JSON has no comma after the last record.",
    "/": "JSON has no comments.",
    '"': "Where each string is a text: jq -c '.[] | {text: .}' FILE > records.jsonl",
}
"""What to do about what stands where a record is expected."""


_FORMS = "A file of records is an array of objects, [{...}, ...], or has an object a line."
