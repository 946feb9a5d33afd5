"""Which run a folder is of: the one that it holds, or that an export lies in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from graftkit.report.run_manifest import MANIFEST, RunManifest

__all__ = ["first_run", "place_of_export", "places_of", "run_around", "run_of"]


def run_around(export: Path) -> RunManifest | None:
    """Returns the manifest of the run that an export, or a folder in one, lies in, also where a link leads there.

    A manifest.json in the export itself is the export's word, not the run's.

    Raises:
        FolderError: As for `RunManifest.read`.
    """
    parents = [above for place in places_of(export) for above in place.parents[:2]]
    outer = dict.fromkeys(above.parent for above in parents if above.name == "exports")
    return next((found for run in outer if (found := RunManifest.read(run))), None)


def places_of(folder: Path) -> tuple[Path, Path]:
    """Returns where a folder lies by its name, and where it is if links in that are followed."""
    return folder.absolute(), Path(os.path.realpath(folder))  # `resolve` raises at a link to itself


def place_of_export(export: Path) -> Path:
    """Returns where an export lies in the folder it was made in: as it is named, or where links lead that it is.

    Of two such places it is the one in a run.
    """
    named = [place for place in places_of(export) if place.parent.name == "exports"]
    in_run = (place for place in named if (place.parent.parent / MANIFEST).is_file())
    return next(in_run, named[0] if named else export.absolute())


def run_of(folder: Path) -> RunManifest | None:
    """Returns the manifest of the run that an export lies in, or that a folder holds.

    Raises:
        FolderError: As for `RunManifest.read`.
    """
    return run_around(folder) or RunManifest.read(folder)


def first_run(sources: Iterable[str | os.PathLike[str]]) -> RunManifest | None:
    """Returns the manifest of the first among models that is a run, or an export in one; None where none is.

    Raises:
        FolderError: As for `RunManifest.read`.
    """
    return next((run for run in (run_of(Path(source)) for source in sources) if run), None)
