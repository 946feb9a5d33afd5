"""Anchors a recipe's relative paths: in a file to the file's folder, in `--set` to the current one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from graftkit.recipe.document import Document, KeyPath

__all__ = ["anchor_paths", "anchored_reference", "is_address", "is_hub_dataset", "seen_from"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


_ADDRESS = re.compile(r"(hub:|(hf|https?|ftp|s3|gs|gcs|az|abfss?|file)://)", re.IGNORECASE)


def is_address(path: str) -> bool:
    """Tells an address of records elsewhere, which no file is called by, from a path."""
    return _ADDRESS.match(path) is not None


def is_hub_dataset(path: str) -> bool:
    """Tells whether records are named as a data set of the hub: hub:owner/name, hf://datasets/owner/name."""
    return path.startswith(("hub:", "hf://"))


def anchor_paths(document: Document, folder: Path) -> None:
    """Makes the paths in a document absolute.

    Args:
        document: The document; its data is changed.
        folder: The recipe's folder.
    """

    def base(path: KeyPath) -> Path:
        return Path.cwd() if document.where(path).startswith("--set") else folder

    data = document.data
    model = data.get("model")
    if isinstance(model, str):
        data["model"] = anchored_reference(model, base(("model",)))
    elif isinstance(model, dict) and isinstance(model.get("path"), str):
        model["path"] = anchored_reference(model["path"], base(("model", "path")))
    section = data.get("data")
    if isinstance(section, dict):
        for key in ("train", "holdout"):
            if key in section:
                section[key] = _anchored_files(section[key], ("data", key), base)
        if "chat_template" in section:
            section["chat_template"] = _anchored_files(section["chat_template"], ("data", "chat_template"), base)
    section = data.get("objective")
    if isinstance(section, dict) and isinstance(section.get("teacher"), str):
        section["teacher"] = anchored_reference(section["teacher"], base(("objective", "teacher")))
    section = data.get("adapter")
    if isinstance(section, dict) and "from" in section:
        section["from"] = _anchored(section["from"], base(("adapter", "from")))
    section = data.get("tokenizer")
    if isinstance(section, dict):
        _anchor_tokenizer(section, lambda key: base(("tokenizer", key)))


def _anchor_tokenizer(section: dict[str, Any], base: Callable[[str], Path]) -> None:
    for key in ("extend", "train"):
        part = section.get(key)
        if isinstance(part, dict) and "corpus" in part:
            part["corpus"] = _anchored(part["corpus"], base(key))
    found = section.get("replace")
    if isinstance(found, str):
        section["replace"] = anchored_reference(found, base("replace"))
    elif isinstance(found, dict) and isinstance(found.get("path"), str):
        found["path"] = anchored_reference(found["path"], base("replace"))


def _anchored(value: Any, folder: Path) -> Any:
    """Makes a path, or each of a list, absolute; an empty one, which would become the folder, is left to be refused."""
    if isinstance(value, str):
        return str(folder / _expanded(value)) if value else value
    if isinstance(value, list):
        return [str(folder / _expanded(item)) if isinstance(item, str) and item else item for item in value]
    return value


def _anchored_files(value: Any, path: KeyPath, base: Callable[[KeyPath], Path]) -> Any:
    """Anchors a path, a mapping with a path, or a list of either; an address, or "-", is none."""
    if isinstance(value, str) and (value == "-" or is_address(value)):
        return value
    if isinstance(value, list):
        return [_anchored_files(item, (*path, number), base) for number, item in enumerate(value)]
    if isinstance(value, dict):
        return {**value, "path": _anchored_files(value["path"], (*path, "path"), base)} if "path" in value else value
    return _anchored(value, base(path))


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~NAME, where nobody is called so
        return Path(path)


def anchored_reference(reference: str, folder: Path) -> str:
    """Makes a model reference absolute where it means a path.

    `package:NAME/FILE` and anything with another scheme stay; so does `org/name` unless it exists below the folder
    or there is a folder `org` that it might be meant to lie in: then it is a path, and nothing is looked for on a hub.
    """
    if not reference or re.match(r"[a-z][a-z0-9+.-]+:", reference):
        return reference
    path = folder / _expanded(reference)
    if _HUB_ID.fullmatch(reference) and not reference.endswith(".gguf"):
        owner = folder / reference.partition("/")[0]
        with suppress(OSError):  # a name too long, a folder that may not be looked into
            if not path.exists() and not owner.is_dir():
                return reference
    return str(path)


def seen_from(folder: Path, given: str, place: str, *, looked_at: bool = False) -> str:
    """Returns how a recipe in a folder names what is named from the current one.

    Args:
        folder: The recipe's.
        given: As it is named.
        place: Its path; `given` where that is none, or begins at the root.
        looked_at: Whether something is there, under a pattern, too.
    """
    own = folder.resolve()
    if place == given or given.startswith("~") or own == Path.cwd() or not (looked_at or os.path.lexists(place)):
        return given
    return os.path.relpath(place, own)
