"""What plugins have added to a run's report, kept as data: the report is drawn again where a proof comes later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.report_section import ReportChart, ReportPart, ReportSection, ReportTable, ReportText
from graftkit.store.files import write_text

__all__ = ["SECTIONS", "keep_sections", "kept_sections", "plain_sections"]

SECTIONS = "report-sections.json"

_MOST_BYTES = 256 << 20
"""The largest such file that is read."""

_PARTS: Mapping[str, type[ReportPart]] = {"text": ReportText, "table": ReportTable, "chart": ReportChart}

_MOST_OF_ONE = 16 << 20
"""How many characters the sections of one plugin may take as JSON."""


def plain_sections(sections: Sequence[ReportSection]) -> list[ReportSection]:
    """Returns a plugin's sections as they are read again: whatever they were made of, they are core's own types then.

    Raises:
        Exception: A section or a part is not what its class makes of it, or there is more than a report takes.
    """
    found, size = list[ReportSection](), 0

    def plain(said: Any) -> Any:
        nonlocal size
        text = json.dumps(said)
        size += len(text)
        if size > _MOST_OF_ONE:
            raise ValueError(f"sections of more than {_MOST_OF_ONE >> 20} MiB")
        return json.loads(text)

    for section in sections:
        parts = [_of_json(plain(_as_json(part))) for part in section.parts]
        found.append(ReportSection(plain(section.title), parts))
    return found


def keep_sections(path: Path, sections: Sequence[tuple[str, ReportSection]]) -> None:
    """Writes sections, each with its plugin's name; where there are none, there is no file.

    Raises:
        StorageError: The system refused.
    """
    if not sections:
        path.unlink(missing_ok=True)
        return
    kept = [
        {"plugin": plugin, "title": each.title, "parts": list(map(_as_json, each.parts))} for plugin, each in sections
    ]
    write_text(path, json.dumps({"sections": kept}))  # in ASCII: a text may hold half of a surrogate pair


def kept_sections(path: Path) -> list[tuple[str, ReportSection]]:
    """Reads what `keep_sections` wrote.

    Raises:
        FolderError: The file is damaged.
    """
    if not path.exists():
        return []
    said = read_json_object(path, _MOST_BYTES, FolderError)
    try:
        return [
            (str(each["plugin"]), ReportSection(each["title"], list(map(_of_json, each["parts"]))))
            for each in said["sections"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path), hint="Put it back as it was.") from None


def _as_json(part: ReportPart) -> dict[str, Any]:
    """Returns a part as JSON, which has no NaN: a cell that is one is kept as the text that is shown of it.

    Raises:
        TypeError: It is no part, or one of something else than its class takes.
    """
    kind = next((name for name, kind in _PARTS.items() if isinstance(part, kind)), None)
    if kind is None:
        raise TypeError(f"a part of ReportSection is {type(part).__name__}")
    found = {"kind": kind, **{each.name: getattr(part, each.name) for each in fields(_PARTS[kind])}}
    if isinstance(part, ReportTable):
        shown = ([cell if _is_json(cell) else str(cell) for cell in row] for row in part.rows)
        found["rows"] = list(shown)
    return found


def _is_json(cell: str | int | float) -> bool:
    return not isinstance(cell, float) or math.isfinite(cell)


def _of_json(part: Mapping[str, Any]) -> ReportPart:
    return _PARTS[part["kind"]](**{key: value for key, value in part.items() if key != "kind"})
