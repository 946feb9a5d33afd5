"""Reads a file that must hold a JSON object, of whoever wrote it; writes one that people read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular

__all__ = ["read_json_object", "special_float", "write_json"]

_SPECIAL_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def read_json_object(
    path: Path,
    most_bytes: int,
    error: type[GraftkitError],
    *,
    missing: str = "",
    damaged: str = "",
    **options: Any,
) -> dict[str, Any]:
    """Returns the object that a file holds.

    Args:
        path: The file.
        most_bytes: The largest that is read.
        error: What is raised where it can't be.
        missing: What to do where there is no such file.
        damaged: What to do where there is one.
        options: Further keywords of `parse_json`.

    Raises:
        GraftkitError: `error`: the file is missing, can't be read, or holds no JSON object.
    """
    try:
        data = parse_json(read_regular(path, most_bytes), **options)
    except FileNotFoundError:
        raise error(f"there is no {path.name}", where=str(path.parent), hint=missing) from None
    except OSError as reason:
        raise error(f"it can't be read: {reason.strerror}", where=str(path), hint=damaged) from None
    except ValueError as reason:
        raise error(f"it is no JSON: {reason}", where=str(path), hint=damaged) from None
    if not isinstance(data, dict):
        raise error("it is no JSON object", where=str(path), hint=damaged)
    return data


def special_float(value: dict[str, Any]) -> Any:
    """Returns a number in the place of `{"__float__": "Infinity"}`, which transformers 5 writes for what JSON lacks.

    It is the `object_hook` with which a config.json is read.

    Args:
        value: An object; any other is returned as it is.
    """
    tag = value.get("__float__")
    return _SPECIAL_FLOATS.get(tag, value) if isinstance(tag, str) and len(value) == 1 else value


def write_json(path: Path, data: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes an indented JSON file."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
