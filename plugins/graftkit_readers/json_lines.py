"""A JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from graftkit import Record, RecordSource
from graftkit.interfaces.record_source import decode_utf8

from graftkit_readers.parsed import parse_record

__all__ = ["JsonLines", "begins_with_a_line"]

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
            yield Record(place, _parsed(line, f"{source}{place}"))


def _parsed(line: bytes, where: str) -> Callable[[], Any]:
    return lambda: parse_record(decode_utf8(line, where), where)


def begins_with_a_line(head: bytes, suffix: str) -> bool:
    """Tells a file of lines from one that is a single JSON value, perhaps over many lines.

    Args:
        head: The file's first bytes.
        suffix: The file's suffix, which decides where the first bytes do not.
    """
    start = head.lstrip()
    if start.startswith(b"["):
        return False
    if suffix != ".json":
        return True
    line, end, rest = start.partition(b"\n")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return not end and len(head) > 1 << 15  # a line longer than what was looked at
    return bool(rest.strip()) or b'":' in line
