"""Hashes of files, by which it is known that they are as they were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.interfaces.regular_file import open_regular

__all__ = ["begins_with", "facts_of", "file_facts", "is_another", "sha256_of"]


def sha256_of(path: Path) -> str:
    """Returns a file's sha256 in hex.

    Raises:
        OSError: It can't be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_another(path: Path, listed: Mapping[str, Any]) -> bool:
    """Tells whether a file is another one than a list says, or can't be read.

    Args:
        path: The file.
        listed: Its size and sha256, as `file_facts` says them.
    """
    try:
        return path.stat().st_size != listed.get("bytes") or sha256_of(path) != listed.get("sha256")
    except OSError:
        return True


def begins_with(path: Path, length: int, sha256: str) -> bool:
    """Tells whether a file begins with as many bytes of a sha256, in hex; not where it can't be read.

    Args:
        path: The file.
        length: How many bytes.
        sha256: Their hash.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while length and (part := file.read(min(length, 1 << 20))):
                digest.update(part)
                length -= len(part)
    except OSError:
        return False
    return not length and digest.hexdigest() == sha256


def facts_of(path: Path) -> dict[str, Any]:
    """Returns a file's size in bytes and its sha256, as manifests list them.

    Raises:
        OSError: It can't be read, or is no regular file.
    """
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def file_facts(folder: Path, *, leave_out: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    """Lists every file below a folder by its relative path, with its size in bytes and its sha256."""
    return {
        path.relative_to(folder).as_posix(): facts_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in leave_out
    }
