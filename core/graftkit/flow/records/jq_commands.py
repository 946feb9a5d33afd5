"""The commands that make records of a file by jq."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from graftkit.interfaces.record_format import Column
from graftkit.interfaces.record_source import PACKED
from graftkit.interfaces.yaml_word import yaml_word

__all__ = ["Look", "Remade", "by_jq", "field", "offered", "prompt_in"]

Remade = tuple[str, str] | None
"""What a shape of records is told as, and the jq program that makes others of one of them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a file's first records hold.

    Attributes:
        found: The file's columns.
        first: Its first records, each with its place; read anew each time.
        read: The columns that the format that fits reads; none where no format fits.
        words: The columns of numbers for which the file keeps words.
    """

    found: Mapping[str, Column]
    first: Iterable[tuple[str, Mapping[str, Any]]]
    read: Collection[str] = ()
    words: Collection[str] = ()

    def values(self, name: str) -> set[str]:
        """Returns the values of a column that are no lists and no objects, as text in small letters.

        Example:
            >>> sorted(Look({}, [("a:1", {"label": True}), ("a:2", {"label": 0})]).values("label"))
            ['0', 'true']
        """
        values = (record.get(name) for _, record in self.first)
        alone = (value for value in values if value is not None and not isinstance(value, list | dict))
        return {str(value).strip().lower() for value in alone}


def by_jq(made: str, path: str) -> str:
    """Returns the command that makes other records of a file.

    Args:
        made: The jq program, of one record.
        path: The path that the recipe gives.
    """
    suffix = PurePath(path).suffix
    unpacked, file = "", "FILE"
    if suffix in PACKED:
        path, unpacked, file = path.removesuffix(suffix), f"{PACKED[suffix]} -dc FILE | ", "/dev/stdin"
    lines = next((lines for endings, lines in _LINES.items() if path.endswith(endings)), None)
    if lines is not None:
        return f"{unpacked}{lines} {file} | jq -c '{made}' > records.jsonl"
    each = 'if type == "array" then .[] else . end | ' if path.endswith(".json") else ""
    return f"{unpacked}jq -c '{each}{made}' {file} > records.jsonl"


_TABLE = (
    "python -c 'import csv, json, sys; csv.field_size_limit(1 << 30); [print(json.dumps(row)) for row in "
    'csv.DictReader(open(sys.argv[1], encoding="utf-8-sig", newline=""){})]\''
)

_LINES: Mapping[tuple[str, ...], str] = {
    (".parquet", ".pq"): "python -c 'import json, sys, pyarrow.parquet as p; "
    "[print(json.dumps(row, default=str)) for row in p.read_table(sys.argv[1]).to_pylist()]'",
    (".csv",): _TABLE.format(""),
    (".tsv",): _TABLE.format(', delimiter="\\t"'),
}
"""What makes JSON of a table, a line a record, by the ends of its name."""


def offered(made: str, look: Look, path: str, does: str = "makes records of them") -> str:
    """Returns the command, and the line that leaves columns out where something else is read.

    Args:
        made: The jq program, of one record.
        look: What the file holds.
        path: The path that the recipe gives.
        does: What the command does.
    """
    left = ", ".join(yaml_word(name) for name in look.found if name not in look.read)
    unread = f"; or, where they are not meant, {{path: {yaml_word(path)}, unused: [{left}]}}." if look.read else ""
    return f"This {does}: {by_jq(made, path)}{unread}"


def field(name: str) -> str:
    """Returns a column of a record, as jq writes it.

    Example:
        >>> field("sent1"), field("gold-source")
        ('.sent1', '.["gold-source"]')
    """
    return f".{name}" if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f".[{json.dumps(name)}]"


def prompt_in(found: Mapping[str, Column]) -> str | None:
    """Returns where the prompt stands in a record, as jq writes it; None where there is none."""
    for name in ("prompt", "instruction", "question", "context", "history"):
        if name in found and (found[name].is_text or (found[name].is_list_of_objects and "role" in found[name].keys)):
            return f".{name}"
        if name in found and "full_text" in found[name].keys:
            return f".{name}.full_text"
    return None
