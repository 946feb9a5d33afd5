"""A JSON object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from graftkit import Record, RecordSource
from graftkit.interfaces.record_source import decode_utf8

from graftkit_readers.parsed import parse_record

__all__ = ["JsonLines", "begins_with_a_line", "holds_records"]

_SUFFIXES = (".jsonl", ".ndjson", ".json")


class JsonLines:
    """Reads files with a JSON object a line; blank lines are passed over."""

    def accepts(self, source: RecordSource) -> bool:
        """Tells whether the suffix is one of JSON, and the first line not a part of a larger value."""
        return source.suffix in _SUFFIXES and begins_with_a_line(source.head, source.suffix)

    def records(self, source: RecordSource) -> Iterator[Record]:
        """Yields a record a line."""
        for number, line in source.lines():
            place = f":{number}"
            yield Record(place, partial(_parsed, line, source, place))


def _parsed(line: bytes, source: RecordSource, place: str) -> Any:
    where = f"{source}{place}"
    return parse_record(decode_utf8(line, where), where, _A_LINE)


_A_LINE = "A line is one whole JSON object. Of another form of JSON, this makes lines: jq -c . FILE > records.jsonl"


def begins_with_a_line(head: bytes, suffix: str) -> bool:
    """Tells a file of lines from one whose values go over many lines, or are in one array.

    Args:
        head: The file's first bytes.
        suffix: The file's suffix, which decides where the first bytes do not.
    """
    start = head.lstrip()
    line, end, rest = start.partition(b"\n")
    whole, more = line.decode("utf-8", "replace").rstrip(), bool(rest.strip())
    if not whole:
        return suffix != ".json"
    try:
        found = json.loads(whole)
    except json.JSONDecodeError as error:
        if start.startswith(b"["):
            return False
        if not end and len(head) > 1 << 15:  # a line longer than what was looked at
            return suffix != ".json" or not holds_records(head)
        return error.pos < len(whole)  # else it goes on in the next line; what is wrong with a line is told by it
    except (ValueError, RecursionError):
        return not start.startswith(b"[")
    if isinstance(found, list):
        return more and suffix != ".json"
    return more or suffix != ".json" or not holds_records(head)


def holds_records(head: bytes) -> bool:
    """Tells a file that is an object with a list of records from one that is a record with a list of messages.

    Args:
        head: The file's first bytes.
    """
    return bool(_HOLDS_RECORDS.match(head))


_HOLDS_RECORDS = re.compile(rb'\s*\{\s*"[^"\\]{0,200}"\s*:\s*\[\s*(?:\]|\{(?!\s*"(?:role|content|from|value)"\s*:))')
"""An object whose first value is a list, empty or of objects that do not begin as messages do."""
