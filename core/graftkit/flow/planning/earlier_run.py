"""What a run has settled that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftkit.errors import FolderError
from graftkit.flow.folders.own_files import ADAPTER_FROM
from graftkit.flow.planning.unsettled import SETTLED_KEYS
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.schema.training import TrainingSection
from graftkit.report.run_manifest import RunManifest, SettledKey

__all__ = ["NO_RUN", "EarlierRun", "day_of"]


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What a run has settled that goes on, and holds for it whatever machine and files would come to by now.

    Attributes:
        day: The day that its records were laid out for; None where they were not.
        chosen: The keys of `training` that it chose itself.
        revisions: The commits of the hub's data sets that it took; None where no run goes on. See `RunPlan.revisions`.
        settled: What keys that say `auto` came to in it.
        adapter_copy: Where it keeps a copy of the adapter that it began with, if any; None where no run goes on.
    """

    day: date | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    revisions: Mapping[str, str] | None = None
    settled: Mapping[str, SettledKey] = field(default_factory=dict)
    adapter_copy: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> EarlierRun:
        """Returns what the run in a folder has settled; nothing where there is no run yet.

        Raises:
            FolderError: The run's manifest is damaged.
        """
        manifest, copy = RunManifest.read(folder), folder / ADAPTER_FROM
        if manifest is None:
            return cls(revisions={}, adapter_copy=copy)
        revisions = manifest.data.revisions if manifest.data else {}
        return cls(day_of(manifest), _chosen(manifest, folder), revisions, _settled(manifest, folder), copy)


NO_RUN = EarlierRun()
"""What there is where none goes on."""


def day_of(run: RunManifest) -> date | None:
    """Returns the day that a run's records were laid out for; None where they were not."""
    if run.data is None:
        return None
    try:
        return date.fromisoformat(run.data.date)
    except ValueError:
        return None


def _chosen(manifest: RunManifest, folder: Path) -> Mapping[str, Any]:
    try:
        TrainingSection.model_validate(manifest.chosen)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise FolderError(f"the run's manifest is damaged: 'chosen.{key}'", where=str(folder)) from None
    return manifest.chosen


def _settled(manifest: RunManifest, folder: Path) -> dict[str, SettledKey]:
    found: dict[str, SettledKey] = {}
    for key in SETTLED_KEYS:
        section, _, name = key.partition(".")
        said = manifest.recipe.get(section)
        value = said.get(name) if isinstance(said, Mapping) else None
        if value in (None, "auto"):
            continue
        try:
            Recipe.model_fields[section].annotation.model_validate({name: value})  # type: ignore[union-attr]
            known = manifest.settled.get(key)
            found[key] = SettledKey(value=value, reason=known.reason if known else "as the run was started")
        except ValidationError:
            raise FolderError(f"the run's manifest is damaged: 'recipe.{key}'", where=str(folder)) from None
    return found
