"""Finds out from where a run goes on, and refuses where it would become another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graftkit._version import __version__
from graftkit.errors import FolderError, RecipeError, RequestError, TrainingError
from graftkit.report.run_manifest import RunManifest

__all__ = ["Resumed", "day_of_run", "find_run", "revisions_of_run", "telling_versions"]

_FREE = ("export", "plugins", "training.checkpoint_every", "training.device")
"""What may differ when a run goes on: none of it changes what a step computes, but for a device's rounding."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that goes on.

    Attributes:
        manifest: What its manifest said when it stopped.
    """

    manifest: RunManifest

    @property
    def made_by_others(self) -> str:
        """What says that the run was made by other versions than these; empty where it wasn't."""
        return _made_by_others(self.manifest)


@contextmanager
def telling_versions(folder: Path | None) -> Iterator[None]:
    """Says first of a refusal that the run was made by other versions, where it was: the recipe is not to blame then.

    Args:
        folder: The folder of the run that goes on, or None where none does.
    """
    manifest = _unfinished(folder)  # before the run that goes on writes its own
    others = _made_by_others(manifest) if manifest else ""
    try:
        yield
    except (RequestError, TrainingError) as error:
        if not others or others in error.message:
            raise
        advice = "Go on with the versions that made it, or start anew with --overwrite."
        told = type(error)(f"{others}: {error.message}", where=error.where, hint=f"{advice} {error.hint}".rstrip())
        for note in getattr(error, "__notes__", []):
            told.add_note(note)
        raise told from error


def _unfinished(folder: Path | None) -> RunManifest | None:
    try:
        manifest = RunManifest.read(folder) if folder else None
    except FolderError:  # damaged, which has been said
        return None
    return manifest if manifest and manifest.status != "finished" else None


def _made_by_others(manifest: RunManifest) -> str:
    """Says which versions a run was made by, graftkit's own first, where they are not the present ones."""
    made = {"graftkit": manifest.graftkit} | dict(_distributions(manifest.providers))
    changed = [f"{name} {old} (this is {now})" for name, old in made.items() if (now := _present(name)) != old]
    return f"the run was made by {', '.join(changed)}" if changed else ""


def _distributions(providers: Any) -> Iterator[tuple[str, str]]:
    """Yields name and version of the distribution of each provider that a manifest names, but graftkit's own."""
    if isinstance(providers, Mapping) and isinstance(providers.get("distribution"), str):
        if providers["distribution"] not in ("", "graftkit"):
            yield providers["distribution"], str(providers.get("version", ""))
    elif isinstance(providers, Mapping | list):
        for inner in providers.values() if isinstance(providers, Mapping) else providers:
            yield from _distributions(inner)


def _present(distribution: str) -> str:
    if distribution == "graftkit":
        return __version__
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


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
    """Returns the day that the records of the run in a folder were laid out for; None where there is none yet.

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


def revisions_of_run(folder: Path) -> dict[str, str]:
    """Returns the commits of the hub's data sets that the run in a folder reads; none where there is no run yet.

    Raises:
        FolderError: The run's manifest is damaged.
    """
    manifest = RunManifest.read(folder)
    return dict(manifest.data.revisions) if manifest and manifest.data else {}


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
