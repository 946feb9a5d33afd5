"""Temporary folders of proofs, which whoever asked for a proof removes where its process was killed."""

from __future__ import annotations

import glob
import re
import shutil
from pathlib import Path

from graftkit.store.temporaries import TEMPORARY, sweep_of, temporary_prefix

__all__ = ["prefix_of_proof", "remove_leftovers_of", "sweep_leftovers"]


def prefix_of_proof(folder: Path, process: int) -> str:
    """Returns what the names of a proof's temporary folders begin with, so that whoever stops it can remove them."""
    return temporary_prefix(f"{folder.name}.{process}")


def remove_leftovers_of(folder: Path, process: int) -> None:
    """Removes the folders that one process has left which proved an export.

    Args:
        folder: The export.
        process: Its number.
    """
    for left in folder.absolute().parent.glob(f"{glob.escape(prefix_of_proof(folder, process))}*.partial"):
        shutil.rmtree(left, ignore_errors=True)


def sweep_leftovers(folder: Path) -> None:
    """Removes the folders that proofs of an export have left which were killed: a base model may lie in them."""
    parent, own = folder.absolute().parent, re.compile(rf"{re.escape(folder.name)}\.\d+")
    for left in sorted(parent.glob(".*.partial")):
        found = TEMPORARY.fullmatch(left.name)
        if found and own.fullmatch(found[1]):
            sweep_of(parent / found[1])
