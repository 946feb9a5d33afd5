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
    key = ""
    if text.next() == "{":
        found = _KEY.match(text.text, text.at) if holds_records(text.source.head) else None
        if found is None:
            yield from _objects(text)
            return
        key = found[1]
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
        yield (after := _object(text, f"#{number}"))
    text.skip(1)
    if key:
        _check_rest(text, number, key)
    if text.next():
        raise _stray(text, number)


def _objects(text: _Text) -> Iterator[str]:
    number = 0
    while sign := text.next():
        number += 1
        if sign != "{":
            raise _malformed(text, number, sign)
        yield _object(text, f"#{number}")


def _check_rest(text: _Text, number: int, key: str) -> None:
    """Takes what follows the array in the object that holds it, and refuses what is lost or lacking there.

    Args:
        text: The text after the array's closing bracket.
        number: How many records were in the array.
        key: Its key in the object, as JSON.

    Raises:
        DataError: The object does not end, is no JSON, or holds a further list of objects.
    """
    place = f", after the list of {number:,} records"
    rest = parse_record(f"{{{key}: 0{_object(text, place, depth=1)}", f"{text.source}{place}")
    if _holds_objects(rest):
        hint = "Make each list a file of its own: jq '.NAME' FILE > NAME.json"
        raise DataError("the object holds more than one list of records", where=str(text.source), hint=hint)


def _holds_objects(value: Any) -> bool:
    """Tells whether a list of objects is somewhere in a value."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any((isinstance(value, list) and isinstance(inner, dict)) or _holds_objects(inner) for inner in inside)


def _stray(text: _Text, number: int) -> DataError:
    return DataError(f"more stands after the array of {number:,} records", where=str(text.source), hint=_FORMS)


def _object(text: _Text, place: str, depth: int = 0) -> str:
    """Takes an object off the text's beginning.

    Args:
        text: The text.
        place: Where in the file, for errors.
        depth: How many brackets are open already: 1 where a part of the object has been taken.

    Raises:
        DataError: The file ends in it, or it is longer than `MAX_LINE`.
    """
    part = "the object that holds the records" if depth else "a record"
    seen = 0  # counts from where the object begins
    while True:
        for sign in _SIGN.finditer(text.text, text.at + seen):
            found = sign[0]
            seen = sign.end() - text.at
            if found[0] == '"':
                if sign[1]:
                    continue
                seen = sign.start() - text.at  # brackets in it are none of the object's
                break
            depth += 1 if found in "{[" else -1
            if not depth:
                whole = text.text[text.at : sign.end()]
                text.skip(seen)
                return whole
        else:
            seen = len(text.text) - text.at
        if len(text.text) - text.at > MAX_LINE:
            raise text.source.too_long(place)
        if not text.more():
            raise DataError(
                f"the file ends in the middle of {part}", where=f"{text.source}{place}", hint="It is cut short."
            )


def _malformed(text: _Text, number: int, sign: str) -> DataError:
    found = "the file ends" if not sign else f"{json.dumps(sign, ensure_ascii=False)} stands"
    return DataError(
        f"no JSON array of objects: {found} where a record is expected",
        where=f"{text.source}#{number}",
        hint=_HINTS.get(sign, ""),
    )


_HINTS = {
    "[": "Where each list is a conversation: jq -c '.[] | {messages: .}' FILE > records.jsonl; where it is a pair of "
    "texts: jq -c '.[] | {query: .[0], positive: .[1]}' FILE > records.jsonl",
    "]": "JSON has no comma after the last record.",
    "/": "JSON has no comments.",
    '"': "Where each string is a text: jq -c '.[] | {text: .}' FILE > records.jsonl",
}
"""What to do about what stands where a record is expected."""


_FORMS = "A file of records is an array of objects, [{...}, ...], or has an object a line."
