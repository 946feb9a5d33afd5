"""Anchors a recipe's relative paths: in a file to the file's folder, in `--set` to the current one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from graftkit.recipe.document import Document, KeyPath

__all__ = ["anchor_paths", "anchored_reference"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


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
        for key in ("train", "holdout", "chat_template"):
            if key in section:
                section[key] = _anchored(section[key], base(("data", key)))


def _anchored(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    return value


def anchored_reference(reference: str, folder: Path) -> str:
    """Makes a model reference absolute where it means a path.

    `package:NAME/FILE` and anything with another scheme stay; so does `org/name` unless it exists below the folder
    or there is a folder `org` that it might be meant to lie in: then it is a path, and nothing is looked for on a hub.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:", reference):
        return reference
    path = folder / Path(reference).expanduser()
    if not path.exists() and _HUB_ID.fullmatch(reference):
        owner = reference.partition("/")[0]
        if not (folder / owner).is_dir() and not reference.endswith(".gguf"):
            return reference
    return str(path)
