"""Reads and validates rows: a malformed row is an error, none is skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit.corpus.reading import MAX_LINE, decode_utf8, numbered_lines, read_text, size_of, too_long
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json

__all__ = [
    "ROLES",
    "ChatRow",
    "CompletionRow",
    "LongTextRow",
    "Message",
    "Row",
    "TextRow",
    "read_rows",
    "row_of_line",
    "rows_of",
]

ROLES = ("system", "user", "assistant", "tool")
_MOST_VALUES = 2_000_000
LONG_TEXT = 4 << 20
"""Size in bytes from which on a text file is not held in memory."""

_SHAPES = 'a row is {"messages": [...]}, {"prompt": "...", "completion": "..."} or {"text": "..."}'


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatRow:
    """A conversation; the loss is taken over the assistant's turns."""

    messages: tuple[Message, ...]
    where: str

    def key(self) -> Any:
        """Returns what makes this row equal to another."""
        return [[message.role, message.content] for message in self.messages]


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """A prompt and its completion; the loss is taken over the completion."""

    prompt: str
    completion: str
    where: str

    def key(self) -> Any:
        """Returns what makes this row equal to another."""
        return [self.prompt, self.completion]


@dataclass(frozen=True, slots=True)
class TextRow:
    """Plain text; the loss is taken over all of it."""

    text: str
    where: str

    def key(self) -> Any:
        """Returns what makes this row equal to another."""
        return self.text


@dataclass(frozen=True, slots=True)
class LongTextRow:
    """The text of a large file, read in parts; the loss is taken over all of it."""

    path: Path
    where: str

    @property
    def text(self) -> str:
        """The whole text."""
        return read_text(self.path)

    def key(self) -> Any:
        """Returns what makes this row equal to another."""
        return self.text


Row = ChatRow | CompletionRow | TextRow | LongTextRow


def read_rows(path: Path) -> list[Row]:
    """Reads a file: `.jsonl` with a row a line, `.txt` and `.md` as one text.

    Raises:
        DataError: The file is missing, empty, not UTF-8 or of another kind, or a line holds no row; the error
            names the file and the line.
    """
    return list(rows_of(path))


def rows_of(path: Path) -> Iterator[Row]:
    """Reads a file as `read_rows` does, a row at a time; a long text is not even looked at.

    Raises:
        DataError: As with `read_rows`, once the row in question is reached.
    """
    if _is_text(path):
        yield LongTextRow(path, str(path)) if size_of(path) > LONG_TEXT else TextRow(read_text(path), str(path))
        return
    row = None
    for number, line in numbered_lines(path):
        row = row_of_line(line, f"{path}:{number}")
        if row is not None:
            yield row
    if row is None:
        raise DataError("there is no row in it", where=str(path))


def _is_text(path: Path) -> bool:
    if path.suffix not in (".txt", ".md", ".jsonl", ".ndjson"):
        raise DataError("rows are read from .jsonl, .txt and .md", where=str(path), hint=_exists(path))
    return path.suffix in (".txt", ".md")


def _exists(path: Path) -> str:
    try:
        return "" if path.exists() else "There is no such file."
    except OSError:
        return ""


def row_of_line(line: bytes, where: str) -> Row | None:
    """Reads one line of a `.jsonl` file; None where it is blank.

    Raises:
        DataError: It holds no row.
    """
    if len(line) > MAX_LINE:
        raise too_long(where)
    if not line.strip():
        return None
    return _row(_parse(decode_utf8(line, where), where), where)


def _parse(line: str, where: str) -> Any:
    try:
        return parse_json(line, _MOST_VALUES, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise DataError(f"no JSON: {error.msg} at column {error.colno}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {error}", where=where) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in it twice")
    return result


def _row(data: Any, where: str) -> Row:
    if not isinstance(data, dict):
        raise DataError(f"the line holds {_kind(data)}, no object", where=where, hint=_SHAPES)
    for keys, build in _BUILDERS.items():
        if data.keys() == set(keys):
            return build(data, where)
    present = ", ".join(f'"{key}"' for key in data) or "no keys"
    raise DataError(f"a row with {present} has none of the known shapes", where=where, hint=_SHAPES)


def _chat(data: Mapping[str, Any], where: str) -> ChatRow:
    turns = data["messages"]
    if not isinstance(turns, list) or not turns:
        raise DataError(f'"messages" is {_kind(turns)}, no list of turns', where=where)
    messages = tuple(_message(turn, f"{where}: message {number}") for number, turn in enumerate(turns, 1))
    if not any(message.role == "assistant" and message.content for message in messages):
        raise DataError("no turn of the assistant: there is nothing to learn", where=where)
    return ChatRow(messages, where)


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict) or turn.keys() != {"role", "content"}:
        found = ", ".join(turn) or "nothing" if isinstance(turn, dict) else _kind(turn)
        raise DataError(f'a message has "role" and "content", and nothing else; found {found}', where=where)
    role = turn["role"]
    if role not in ROLES:
        raise DataError(f"role {role!r} is none of {', '.join(ROLES)}", where=where)
    return Message(role, _string(turn, "content", where))


def _completion(data: Mapping[str, Any], where: str) -> CompletionRow:
    completion = _string(data, "completion", where)
    if not completion:
        raise DataError('"completion" is empty: there is nothing to learn', where=where)
    return CompletionRow(_string(data, "prompt", where), completion, where)


def _text(data: Mapping[str, Any], where: str) -> TextRow:
    text = _string(data, "text", where)
    if not text.strip():
        raise DataError('"text" is empty: there is nothing to learn', where=where)
    return TextRow(text, where)


def _string(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise DataError(f'"{key}" is {_kind(value)}, no string', where=where)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f'"{key}" holds half of a surrogate pair, which is no text', where=where) from None
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


_BUILDERS: dict[tuple[str, ...], Callable[[Mapping[str, Any], str], Row]] = {
    ("messages",): _chat,
    ("prompt", "completion"): _completion,
    ("text",): _text,
}
