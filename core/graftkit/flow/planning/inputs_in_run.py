"""Refuses to replace a run whose own files the new one reads."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.option_names import option
from graftkit.recipe.schema.recipe import Recipe

__all__ = ["refuse_inputs_in", "refuse_paths_in"]


def refuse_inputs_in(folder: Path, plan: RunPlan) -> None:
    """Makes sure that a run reads nothing from a folder whose run it is to replace: what it reads would be moved away.

    Args:
        folder: The folder.
        plan: The run's plan.

    Raises:
        FolderError: It does, or would through a link.
    """
    _refuse(folder, _inputs(plan))


def refuse_paths_in(folder: Path, recipe: Recipe, handed: Collection[str]) -> None:
    """Makes sure of the same as far as the recipe's own paths tell, before anything is opened.

    Args:
        folder: The folder.
        recipe: The recipe.
        handed: The keys of `data` whose records are handed in, and are files of the new run.

    Raises:
        FolderError: As for `refuse_inputs_in`.
    """
    said = recipe.model_dump(mode="json")
    said["data"] = {key: value for key, value in said["data"].items() if key not in handed}
    _refuse(folder, _paths_in(said))


def _refuse(folder: Path, inputs: Iterable[tuple[str, str]]) -> None:
    for key, path in inputs:
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise FolderError(
                f"{key} names {path}, which lies in the run that would be replaced",
                where=str(folder),
                hint=f"Give another folder with {option('out')}, or copy what is read out of the run first.",
            )


def _inputs(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Yields the recipe's paths, and the files that were opened by them, each with the key that names it."""
    yield from _paths_in(plan.bound.resolved())
    opened = {"model": plan.files.files, "objective.teacher": plan.teacher.files.files if plan.teacher else ()}
    opened["data"] = tuple(dataset.source.path for dataset in plan.datasets)
    if plan.origin:
        opened["adapter.from"] = tuple(plan.origin.path / name for name in plan.origin.files)
    yield from ((key, str(path)) for key, paths in opened.items() for path in paths)


def _paths_in(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the texts of a recipe that are paths of what is there; all paths are absolute by now.

    Of a pattern it is the folder that it begins in.
    """
    if isinstance(value, str):
        path = value
        if Path(value).is_absolute() and not os.path.lexists(value) and glob.has_magic(value):
            path = str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(value).parts)))
        if Path(path).is_absolute() and os.path.lexists(path):
            yield key, path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths_in(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths_in(inner, key)
