"""Compares files with the hashes that a manifest lists."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from graftkit.errors import FolderError
from graftkit.flow.folders.export_json import EXPORT_AGAIN, short_json
from graftkit.report.run_manifest import FileFacts, RunManifest
from graftkit.report.run_of_folder import place_of_export, places_of, run_around
from graftkit.store.file_hashes import begins_with, sha256_of

__all__ = [
    "check_listed",
    "check_none_beside",
    "is_changed",
    "is_state",
    "leads_out",
    "listed_by_the_run",
    "outer_folder",
    "vouched_checkpoints",
    "with_replaced",
]


_STATE = re.compile(r"checkpoints/step-\d{8}/state\.safetensors")


def check_listed(folder: Path, listed: Any, below: tuple[str, ...] = ("",)) -> None:
    """Compares files with the hashes that a manifest lists.

    Args:
        folder: Where the files lie.
        listed: The manifest's list: each file's size and sha256 by its relative path.
        below: What the paths of the files that matter start with.

    Raises:
        FolderError: A file is missing or is another one, or the list is damaged.
    """
    if not isinstance(listed, Mapping):
        raise FolderError("its manifest is damaged: it lists no files", where=str(folder), hint=EXPORT_AGAIN)
    for name, facts in listed.items():
        if not name.startswith(below):
            continue
        if leads_out(name):
            raise FolderError(
                f"its manifest is damaged: it lists {short_json(name)}, which leads out of it", where=str(folder)
            )
        path = folder / name
        if not isinstance(facts, Mapping) or not isinstance(facts.get("sha256"), str):
            raise FolderError(f"its manifest is damaged: it has no sha256 of {name}", where=str(folder))
        try:
            size = path.stat().st_size if path.is_file() else None
            same = size is not None and size == facts.get("bytes", size) and sha256_of(path) == facts["sha256"]
        except OSError as error:
            raise FolderError(f"the file {name} can't be read: {error.strerror}", where=str(folder)) from error
        if not same:
            state = "missing" if size is None else "changed"
            raise FolderError(
                f"the file {name} is {state}: it is not the file that was written",
                where=str(folder),
                hint="Put it back: what lies there is not what was trained.",
            )


def check_none_beside(folder: Path, listed: Collection[str], below: str) -> None:
    """Makes sure that no file lies beside those that a run's manifest lists: a tokenizer backend would read it.

    Args:
        folder: The run.
        listed: The manifest's list.
        below: The folder of the run that is looked into; names in it that begin with a dot are nobody's.

    Raises:
        FolderError: There is one.
    """
    there = (path for path in sorted((folder / below).rglob("*")) if path.is_file())
    for path in there:
        if path.relative_to(folder).as_posix() not in listed and not path.name.startswith("."):
            raise FolderError(
                f"the file {path.relative_to(folder).as_posix()} is none of the run's: its manifest does not list it",
                where=str(folder),
                hint="Take it out: it would change what is loaded.",
            )


def listed_by_the_run(folder: Path) -> dict[str, Any]:
    """Returns what the manifest of the run that an export lies in says of its files; nothing without such a run.

    Raises:
        FolderError: That manifest is damaged.
    """
    run = run_around(folder)
    artifacts = with_replaced(run.artifacts, run.replacing, outer_folder(folder)) if run else {}
    for prefix in (f"exports/{place.name}/" for place in places_of(folder)):
        found = {name.removeprefix(prefix): facts for name, facts in artifacts.items() if name.startswith(prefix)}
        if found:
            return found
    return {}


def is_changed(folder: Path, manifest: RunManifest, name: str) -> bool:
    """Tells whether a file of a run is missing, or another one than its manifest vouches for.

    Args:
        folder: The run.
        manifest: What it says.
        name: The file's path in it.
    """
    facts, path = manifest.vouched(name), folder / name
    if facts is None:
        return False
    try:
        longer = name in manifest.artifacts and path.stat().st_size != facts.bytes
    except OSError:
        return True
    return longer or not begins_with(path, facts.bytes, facts.sha256)


def vouched_checkpoints(manifest: RunManifest) -> dict[str, str]:
    """Returns the sha256 of the tensors of each checkpoint that a run's manifest vouches for, by its name."""
    states = {name: manifest.vouched(name) for name in {*manifest.artifacts, *manifest.kept} if is_state(name)}
    return {name.split("/")[1]: facts.sha256 for name, facts in states.items() if facts}


def is_state(name: str) -> bool:
    """Tells by its path in a run whether a file has the tensors of a checkpoint."""
    return _STATE.fullmatch(name) is not None


def with_replaced(
    listed: Mapping[str, Any], replacing: Mapping[str, Sequence[FileFacts]], folder: Path
) -> dict[str, Any]:
    """Returns a list of files, in which one that is being replaced is what lies there where it may be that.

    Args:
        listed: Each file's size and sha256 by its path.
        replacing: What else some of them may be.
        folder: Where they lie.
    """
    found = dict(listed)
    for name, others in replacing.items():
        with suppress(OSError, ValueError):  # it is not there, can't be read, or no file can be called so
            size = (folder / name).stat().st_size
            hashes = {other.sha256 for other in others if other.bytes == size and not leads_out(name)}
            if hashes and (there := sha256_of(folder / name)) in hashes:
                found[name] = {"bytes": size, "sha256": there}
    return found


def outer_folder(export: Path) -> Path:
    """Returns the folder that an export was made in, `OUT` of `OUT/exports/NAME`, also where a link leads there."""
    return place_of_export(export).parent.parent


def leads_out(name: str) -> bool:
    """Tells whether the name of a file leads out of its folder, on any system."""
    return any(form(name).is_absolute() or ".." in form(name).parts for form in (PurePosixPath, PureWindowsPath))
