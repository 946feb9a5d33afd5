"""What a file's first records look like, and which formats that fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.record_format import Column, RecordFormat
from graftkit.interfaces.record_source import RecordSource
from graftkit.visible import first_of, one_line

__all__ = ["Fit", "columns_of", "described", "fits"]

_MOST_KEYS = 40


@dataclass(frozen=True, slots=True)
class Fit:
    """A format that reads a file.

    Attributes:
        name: The format's name.
        columns: The columns that it reads, as it calls them.
    """

    name: str
    columns: frozenset[str]


def columns_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Column]:
    """Returns each column of some records, with the types of its values."""
    types: dict[str, tuple[set[str], set[str], set[str]]] = {}
    for record in records:
        for name, value in record.items():
            found, items, keys = types.setdefault(name, (set(), set(), set()))
            found.add(_type_of(value))
            for item in value[:_MOST_KEYS] if isinstance(value, list) else ():
                items.add(_type_of(item))
                keys.update(list(item)[:_MOST_KEYS] if isinstance(item, dict) else ())
            keys.update(list(value)[:_MOST_KEYS] if isinstance(value, dict) else ())
    return {name: Column(*map(frozenset, sets)) for name, sets in types.items()}


def _type_of(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null", RecordSource: "string"}
    names |= {int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def fits(found: Mapping[str, Column], formats: Mapping[str, RecordFormat]) -> list[Fit]:
    """Returns the formats that a file's columns fit; one whose columns are among another's is left out."""
    fitting = [
        Fit(name, frozenset(columns))
        for name, format in formats.items()
        if (columns := format.columns(found)) is not None
    ]
    return [fit for fit in fitting if not any(fit.columns < other.columns for other in fitting)]


def described(found: Mapping[str, Column]) -> str:
    """Returns columns as an error lists them: "text (string), messages (list of objects with role, content)"."""
    return first_of((f"{one_line(name)} ({_described(column)})" for name, column in found.items()), 20) or "none"


def _described(column: Column) -> str:
    types = " or ".join(sorted(column.types - {"null"})) or "null"
    if column.items:
        types += f" of {' and '.join(sorted(f'{item}s' for item in column.items))}"
    return types + (f" with {', '.join(map(one_line, sorted(column.keys)[:8]))}" if column.keys else "")
