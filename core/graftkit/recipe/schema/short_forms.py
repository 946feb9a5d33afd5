"""What a section may be written as for short."""

from __future__ import annotations

from typing import Any

__all__ = [
    "name_alone",
    "one_alone",
    "path_alone",
]


def name_alone(value: Any) -> Any:
    """Returns a name as the section of a provider."""
    return {"use": value} if isinstance(value, str) else value


def path_alone(value: Any) -> Any:
    """Returns a path as a section that has one."""
    return {"path": value} if isinstance(value, str) else value


def one_alone(value: Any) -> Any:
    """Returns a single entry as the list of it."""
    return [value] if isinstance(value, str | dict) else value
