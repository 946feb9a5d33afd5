"""Reads what a run's folder says; what is damaged or missing is reported, and the rest is read all the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import FolderError, StorageError
from graftkit.flow.folders.listed_files import is_changed
from graftkit.flow.folders.metrics import METRICS, Metrics, missing_steps, read_metrics
from graftkit.flow.folders.own_files import answers_file
from graftkit.flow.training.worst_records import WORST_FILE
from graftkit.interfaces.json_file import read_json_object
from graftkit.report.run_data import LengthFigures, RunData, WorstRecord, answers_side_by_side, length_figures
from graftkit.report.run_manifest import RunManifest
from graftkit.store.token_store import TokenStore

__all__ = ["read_run"]

_MOST_BYTES = 256 << 20
"""The largest file of answers that is read."""


def read_run(folder: Path, manifest: RunManifest | None = None) -> RunData:
    """Returns what a run says.

    Args:
        folder: The run's folder.
        manifest: What its manifest.json says, where that is known already.

    Raises:
        FolderError: There is no run in it, or its manifest is damaged.
    """
    known = manifest or RunManifest.read(folder)
    if known is None:
        raise FolderError("there is no run in it", where=str(folder), hint="Name the folder that `toolkit run` wrote.")
    damage: dict[str, str] = {}  # by the file
    metrics = _metrics(folder, known, damage)
    before, after = (_listed(folder / answers_file(when), "answers", damage) for when in ("before", "after"))
    worst, examined = _worst(folder, damage)
    for name in (METRICS, answers_file("before"), answers_file("after"), WORST_FILE):
        if name not in damage and is_changed(folder, known, name):
            damage[name] = f"{name} is not the file that the run wrote"
    return RunData(
        folder=folder,
        manifest=known,
        steps=metrics.steps,
        holdout=metrics.holdout_losses,
        answers=answers_side_by_side(before, after),
        worst=worst,
        examined=examined,
        lengths=_lengths(folder, damage),
        damage=[*damage.values()],
    )


def _metrics(folder: Path, manifest: RunManifest, damage: dict[str, str]) -> Metrics:
    try:
        metrics = read_metrics(folder / METRICS)
    except FolderError as error:
        damage[METRICS] = f"{METRICS} {error.message}"
        return Metrics()
    steps = manifest.training.get("steps")
    missing = missing_steps(metrics.steps, steps) if isinstance(steps, int) else ""
    if missing:
        damage[METRICS] = missing
    return metrics


def _read(path: Path, damage: dict[str, str]) -> Mapping[str, Any]:
    """Returns what a JSON file holds; nothing where there is none, or where it is damaged."""
    if not path.exists():
        return {}
    try:
        return read_json_object(path, _MOST_BYTES, FolderError)
    except FolderError as error:
        damage[path.name] = f"{path.name} is damaged: {error.message}"
        return {}


def _listed(path: Path, key: str, damage: dict[str, str]) -> list[Any]:
    facts = _read(path, damage)
    found = facts.get(key, [])
    if isinstance(found, list):
        return found
    damage[path.name] = f"{path.name} is damaged: '{key}' is no list"
    return []


def _worst(folder: Path, damage: dict[str, str]) -> tuple[list[WorstRecord], int]:
    facts = _read(folder / WORST_FILE, damage)
    try:
        found = [
            WorstRecord(
                str(each["where"]), float(each["loss"]), int(each["loss_tokens"]), list(map(str, each["texts"]))
            )
            for each in facts.get("worst", [])
        ]
        return found, int(facts.get("examples", 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        damage[WORST_FILE] = f"{WORST_FILE} is damaged"
        return [], 0


def _lengths(folder: Path, damage: dict[str, str]) -> dict[str, LengthFigures]:
    found: dict[str, LengthFigures] = {}
    for name, file in (("training", "train"), ("holdout", "holdout")):
        path = folder / "tokens" / f"{file}.safetensors"
        if not path.exists():
            continue
        try:
            store = TokenStore.load(path)
        except (StorageError, OSError, ValueError):
            damage[f"tokens/{path.name}"] = f"tokens/{path.name} is damaged"
            continue
        figures = length_figures(store.lengths.tolist(), int(store.loss_tokens.sum()))
        if figures is not None:
            found[name] = figures
    return found
