"""Small files beside a tokenizer, held as bytes by name: read as JSON or text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graftkit.errors import ModelError

__all__ = ["object_in", "text_in"]


def object_in(files: Mapping[str, bytes], name: str, where: str) -> dict[str, Any]:
    """Returns a file's object, empty where there is no such file.

    Raises:
        ModelError: It is no JSON object.
    """
    if name not in files:
        return {}
    try:
        data = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is no JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise ModelError(f"{name} is no JSON object", where=where)
    return data


def text_in(files: Mapping[str, bytes], name: str, where: str) -> str | None:
    """Returns a file's text, or None where there is no such file.

    Raises:
        ModelError: It is not UTF-8.
    """
    if name not in files:
        return None
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{name} is not UTF-8", where=where) from None
