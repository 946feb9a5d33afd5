"""Finds out from where a run goes on, and refuses where it would become another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError, RecipeError
from graftkit.report.run_manifest import RunManifest

__all__ = ["Resumed", "day_of_run", "find_run"]

_FREE = ("export", "plugins", "training.checkpoint_every", "training.device")
"""What may differ when a run goes on: none of it changes what a step computes, but for a device's rounding."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that goes on.

    Attributes:
        manifest: What its manifest said when it stopped.
    """

    manifest: RunManifest


def find_run(folder: Path, recipe: Mapping[str, Any]) -> Resumed | None:
    """Returns the run in a folder that `recipe` goes on with; None where there is none yet.

    Raises:
        FolderError: The run there has finished, or its manifest is damaged.
        RecipeError: It was started with another recipe.
    """
    manifest = RunManifest.read(folder)
    if manifest is None:
        return None
    if manifest.status == "finished":
        raise FolderError(
            "the run in it has finished: there is nothing to resume",
            where=str(folder),
            hint="Give another folder with --out, or start anew with --overwrite.",
        )
    differing = list(_differences(manifest.recipe, recipe))
    if differing:
        raise RecipeError(
            f"the run was started with another recipe: {'; '.join(differing[:3])}",
            where=str(folder),
            hint="Resume with the same recipe, or start anew with --overwrite.",
        )
    return Resumed(manifest)


def day_of_run(folder: Path) -> date | None:
    """Returns the day that the rows of the run in a folder were laid out for; None where there is none yet.

    Raises:
        FolderError: The run's manifest is damaged.
    """
    manifest = RunManifest.read(folder)
    if manifest is None or manifest.data is None:
        return None
    try:
        return date.fromisoformat(manifest.data.date)
    except ValueError:
        return None


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if path in _FREE:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.keys() == new.keys() and path.count(".") and list(old) != list(new):  # of patterns, the first holds
            yield f"the order in {path} was {', '.join(old)} and is {', '.join(new)}"
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path} was {old!r} and is {new!r}"
