"""Reads YAML and TOML strictly, remembering on which line each key stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

import yaml

from graftkit.errors import RecipeError
from graftkit.interfaces.long_numbers import LONG_NUMBER, is_long_number
from graftkit.redact import HIDDEN, without_secrets

__all__ = ["MAX_DEPTH", "RECIPE_SUFFIXES", "Document", "KeyPath", "parse_value", "read_document", "refuse_extremes"]

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
"""How many keys may lie within each other."""

_MOST_NODES = 80_000
_MOST_DOTS, _MOST_DOTS_OF_A_LINE = 50_000, 1_000
"""How many dots a file of TOML may have, in texts too: each of a dotted key makes a table, and the time that such a key
takes grows with the square of its own."""


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        data: What it holds.
        file: Its name, for errors.
        origins: Where each key path was said: the number of a line of the file, or a place outside it, such as "--set".
        notices: What became of the file's keys that a place outside it contradicted.
        from_file: Whether there is such a file; a program's own mapping comes from none.
    """

    data: dict[str, Any]
    file: str
    origins: dict[KeyPath, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    from_file: bool = True

    def where(self, path: KeyPath) -> str:
        """Names the place of a key, or of the nearest key above it; of what comes from no file by the key itself."""
        for end in range(len(path), 0, -1):
            origin = self.origins.get(path[:end])
            if origin is not None:
                return f"{self.file}:{origin}" if origin.isdecimal() else origin
        return self.file if self.from_file else ".".join([self.file, *map(str, path)])


def read_document(path: Path) -> Document:
    """Reads a recipe file.

    Raises:
        RecipeError: It is missing, too large, not UTF-8, malformed, or no mapping.
    """
    parse = _PARSERS.get(path.suffix)
    if parse is None:
        hint = "Name the recipe's file; `toolkit init` writes one to start from."
        raise RecipeError("a recipe's name ends in .yaml, .yml or .toml", where=str(path), hint=hint)
    return parse(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("this is no regular file", where=str(path))
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError(
            "no such file", where=str(path), hint="`toolkit init` writes a recipe to start from."
        ) from None
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=str(path)) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"too large for a recipe: at most {MAX_BYTES:,} bytes are read", where=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeError("not UTF-8", where=f"{path}:{line}", hint="Save the file as UTF-8.") from None


# --- YAML ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of its 1.2 core schema (so `2e-4` is a number, `no` a word), without aliases and tags."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            problem = f"more than {_MOST_NODES:,} keys and values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if self.check_event(yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            what = "aliases" if self.check_event(yaml.AliasEvent) else "tags"
            raise yaml.MarkedYAMLError(problem=f"{what} are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT = re.compile(r"[-+]?\d+")

for _tag, _pattern, _first in [
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
]:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern.pattern})$"), _first)


_UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, OverflowError)
"""What PyYAML raises: the last two for "\\UFFFFFFFF", which is no character, and for `%YAML` with too long a number."""


def _parse_yaml(text: str, file: str) -> Document:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"not valid YAML: {error.problem}", where=f"{file}{line}") from None
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise RecipeError(f"not valid YAML: the character {chr(error.character)!r}", where=f"{file}:{number}") from None
    except _UNREADABLE as error:
        raise RecipeError(f"not valid YAML: {_reason(error)}", where=file) from None
    if root is None:
        raise RecipeError("the recipe is empty", where=file)
    document = Document({}, file)
    data = _value(root, (), document)
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of sections, such as 'model: ./folder'", where=file)
    document.data = data
    return document


def _reason(error: Exception) -> str:
    """Returns on one line why a text is unreadable."""
    long = isinstance(error, ValueError) and is_long_number(error)
    return LONG_NUMBER if long else " ".join(str(error).split())


def _value(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.origins[path] = str(node.start_mark.line + 1)
    if len(path) > MAX_DEPTH:
        raise RecipeError("nested too deeply", where=f"{document.file}:{document.origins[path]}")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, i), document) for i, child in enumerate(node.value)]
    where = f"{document.file}:{document.origins[path]}"
    try:
        value = _scalar(node)
    except ValueError:  # Python refuses to read thousands of digits
        raise RecipeError(LONG_NUMBER, where=where) from None
    if _is_long(value):
        raise RecipeError(LONG_NUMBER, where=where)
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise RecipeError("half of a surrogate pair, which is no text", where=where)
    return value


def _is_long(value: Any) -> bool:
    """Tells whether a value is a whole number beyond 64 bits, which TOML and torch have no room for."""
    return isinstance(value, int) and value.bit_length() > 63


def _mapping(node: yaml.MappingNode, path: KeyPath, document: Document) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise RecipeError("a key is one word", where=f"{document.file}:{line}")
        if key in result:
            raise RecipeError(f"the key '{key}' stands here a second time", where=f"{document.file}:{line}")
        result[key] = _value(value_node, (*path, key), document)
        document.origins[(*path, key)] = str(line)
    return result


def _scalar(node: yaml.Node) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse_value(text: str, where: str) -> Any:
    """Reads one value as YAML writes it: a number, a word, `[a, b]`, `{use: nf4}`.

    Raises:
        RecipeError: It is malformed.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except _UNREADABLE as error:
        problem = getattr(error, "problem", None) or _reason(error)
        shown = HIDDEN if where.endswith(f"={HIDDEN}") else without_secrets(repr(text))
        raise RecipeError(f"{shown} is no value: {problem}", where=where) from None
    return None if node is None else _value(node, (), Document({}, where))


# --- TOML ---------------------------------------------------------------------------------------------------------

_TABLE = re.compile(r"\s*+\[\[?+([^\]]++)\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+)\s*=")


def _parse_toml(text: str, file: str) -> Document:
    if text.count(".") > _MOST_DOTS:
        raise RecipeError(f"more than {_MOST_DOTS:,} dots", where=file)
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS_OF_A_LINE:
            raise RecipeError(f"a line of more than {_MOST_DOTS_OF_A_LINE:,} dots", where=f"{file}:{number}")
    try:
        data = _with_dates_as_texts(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+)", str(error))
        where = f"{file}:{match[1]}" if match else file
        raise RecipeError(f"not valid TOML: {str(error).partition(' (at')[0]}", where=where) from None
    except RecursionError:
        raise RecipeError("nested too deeply", where=file) from None
    except ValueError as error:
        raise RecipeError(f"not valid TOML: {_reason(error)}", where=file) from None
    document = Document(data, file, _toml_lines(text))
    refuse_extremes(data, (), document)
    return document


def _with_dates_as_texts(value: Any) -> Any:
    """Returns what TOML holds as YAML and JSON would have it, which write days and times as texts."""
    if isinstance(value, dict):
        return {key: _with_dates_as_texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_dates_as_texts(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else value


def refuse_extremes(value: Any, path: KeyPath, document: Document) -> None:
    """Refuses what is nested too deeply, and numbers that are too long.

    Args:
        value: What the document holds at a place.
        path: The place.
        document: The document.

    Raises:
        RecipeError: There is such a value.
    """
    if len(path) > MAX_DEPTH:
        raise RecipeError("nested too deeply", where=document.where(path))
    if _is_long(value):
        raise RecipeError(LONG_NUMBER, where=document.where(path))
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        refuse_extremes(child, (*path, key), document)


def _toml_lines(text: str) -> dict[KeyPath, str]:
    """Finds the line of every table header and key; what stands inside an inline table has its parent's line."""
    lines: dict[KeyPath, str] = {}
    table: KeyPath = ()
    counts: dict[Hashable, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _TABLE.match(line):
            table = _toml_path(header[1])
            if line.lstrip().startswith("[["):
                index = counts.get(table, 0)
                counts[table] = index + 1
                table = (*table, index)
            lines.setdefault(table, str(number))
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_toml_path(key[1])), str(number))
    return lines


def _toml_path(text: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


_PARSERS = {".yaml": _parse_yaml, ".yml": _parse_yaml, ".toml": _parse_toml}

RECIPE_SUFFIXES = tuple(_PARSERS)
"""What a recipe's name ends in."""
