"""Reads the JSON files of an export, which may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.regular_file import MOST_BYTES

__all__ = ["EXPORT_AGAIN", "json_object", "short_json"]

EXPORT_AGAIN = "Export it again, or take the export from where it came from."
"""What to do about an export that is damaged."""


def json_object(path: Path) -> dict[str, Any]:
    """Returns what a configuration or a manifest says.

    Raises:
        FolderError: It is missing, damaged, or too large.
    """
    return read_json_object(path, MOST_BYTES, FolderError, damaged=EXPORT_AGAIN)


def short_json(value: Any) -> str:
    """Returns a value as JSON that has room in a message."""
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
