"""`metrics.jsonl`, a line a step: read so that a damaged line is named and stands in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.host.lifecycle import StepInfo
from graftkit.interfaces.regular_file import read_regular

__all__ = ["METRICS", "missing_steps", "read_steps", "to_line"]

METRICS = "metrics.jsonl"

_KEYS = tuple(field.name for field in fields(StepInfo) if field.name not in ("steps", "metrics"))


def to_line(step: StepInfo) -> dict[str, Any]:
    """Returns what a step's line says."""
    line = {key: getattr(step, key) for key in _KEYS}
    return line | {"metrics": dict(step.metrics)} if step.metrics else line


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Returns the lines that can be read, in the order of their steps; none where there is no file.

    A line that is no JSON, lacks a number or has the step of an earlier one is left out, as is a last line that a crash
    has cut off: `missing_steps` says of which steps there is none.

    Raises:
        FolderError: The system refuses to read it, or it is no regular file.
    """
    try:
        lines = read_regular(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "Move it out of the way: the run goes on without it."
        raise FolderError(f"can't be read: {error.strerror}", where=str(path), hint=hint) from error
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        facts = _read(line)
        if facts is not None:
            found.setdefault(facts["step"], facts)
    return [found[step] for step in sorted(found)]


def missing_steps(lines: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Says which of the first steps have no line that can be read; nothing where all have.

    Args:
        lines: What `read_steps` gave.
        steps: How many steps have been taken.
    """
    missing = [str(step) for step in range(1, steps + 1) if step not in {line["step"] for line in lines}]
    if not missing:
        return ""
    shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return f"{METRICS} is damaged: it has no line that can be read of step {shown}"


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
        numbers = all(type(facts[key]) in (int, float) for key in _KEYS)
        return facts if numbers and type(facts["step"]) is int else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
