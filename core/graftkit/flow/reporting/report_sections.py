"""What plugins have added to a run's report, kept as data: the report is drawn again where a proof comes later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.report_section import ReportChart, ReportPart, ReportSection, ReportTable, ReportText
from graftkit.store.files import write_text

__all__ = ["SECTIONS", "keep_sections", "kept_sections"]

SECTIONS = "report-sections.json"

_MOST_BYTES = 256 << 20
"""The largest such file that is read."""

_PARTS: Mapping[str, type[ReportPart]] = {"text": ReportText, "table": ReportTable, "chart": ReportChart}
_NAMES = {kind: name for name, kind in _PARTS.items()}


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
    """Returns a part as JSON, which has no NaN: a cell that is one is kept as the text that is shown of it."""
    found = {"kind": _NAMES[type(part)], **asdict(part)}
    if isinstance(part, ReportTable):
        shown = ([cell if _is_json(cell) else str(cell) for cell in row] for row in part.rows)
        found["rows"] = list(shown)
    return found


def _is_json(cell: str | int | float) -> bool:
    return isinstance(cell, str) or math.isfinite(cell)


def _of_json(part: Mapping[str, Any]) -> ReportPart:
    return _PARTS[part["kind"]](**{key: value for key, value in part.items() if key != "kind"})
