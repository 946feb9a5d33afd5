"""Checkpoints: everything that the next step depends on, so that resuming is as if nothing had happened."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import TrainingError
from graftkit.exporting.shards import save_tensors
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.store.file_hashes import sha256_of
from graftkit.store.files import write_json
from graftkit.store.folders import atomic_folder
from graftkit.store.system import guarded, make_folder
from graftkit.store.temporaries import sweep

__all__ = [
    "checkpoint_of",
    "damaged_checkpoints",
    "forget_after",
    "keep_newest",
    "latest_checkpoint",
    "read_checkpoint",
    "read_evaluations",
    "state_facts",
    "state_file",
    "write_checkpoint",
]

_EARLIER = "Delete this checkpoint: the run goes on from the one before it."

_NAME = re.compile(r"step-(\d{8})")
_STATE, _FACTS = "state.safetensors", "checkpoint.json"


def write_checkpoint(
    folder: Path,
    step: int,
    state: Mapping[str, torch.Tensor],
    *,
    tokenizer_fingerprint: str = "",
    evaluations: Sequence[Mapping[str, int | float]] = (),
    keep: int = 2,
    also: Collection[int] = (),
    others: Collection[str] = (),
) -> Path:
    """Writes `step-NNNNNNNN/` as a whole and deletes the oldest beyond the kept ones.

    Those of later steps are deleted, too: training did not go on from them.

    Args:
        folder: Where checkpoints lie; made when missing.
        step: How many steps have been taken.
        state: The trainer's tensors.
        tokenizer_fingerprint: Of the tokenizer that they are trained with.
        evaluations: What was measured on holdout examples so far, which the best step follows from.
        keep: How many are kept, the newest ones: should the last turn out damaged, there is one before it.
        also: Steps whose checkpoints are kept besides.
        others: Files in that folder that somebody else has put there, relative to it: they stay where they are.

    Raises:
        StorageError: The system refused; older checkpoints are as they were.
    """
    with guarded(folder):
        make_folder(folder)
    path = folder / f"step-{step:08d}"
    kept = [name.removeprefix(f"{path.name}/") for name in others if name.startswith(f"{path.name}/")]
    with atomic_folder(path, keep=kept) as temporary:
        save_tensors({name: t.detach().cpu().contiguous() for name, t in state.items()}, temporary / _STATE)
        facts = {"step": step, "sha256": sha256_of(temporary / _STATE), "tokenizer_fingerprint": tokenizer_fingerprint}
        measured = {"evaluations": [dict(one) for one in evaluations]} if evaluations else {}
        write_json(temporary / _FACTS, {**facts, **measured})
    forget_after(folder, step)
    for earlier, old in list(_checkpoints(folder))[keep:]:
        if earlier not in also:
            _remove(old)
    return path


def keep_newest(folder: Path, also: Collection[int] = ()) -> None:
    """Deletes all checkpoints but the newest whole one, and their folder if nothing is left in it.

    Args:
        folder: Where checkpoints lie.
        also: Steps whose checkpoints are kept besides.

    Raises:
        StorageError: The system refused.
    """
    sweep(folder)
    newest = latest_checkpoint(folder)
    for step, path in _checkpoints(folder):
        if (newest is None or path != newest[1]) and step not in also:
            _remove(path)
    with suppress(OSError):
        folder.rmdir()


def forget_after(folder: Path, step: int) -> None:
    """Deletes the checkpoints of later steps than one.

    Raises:
        StorageError: The system refused.
    """
    for later, path in _checkpoints(folder):
        if later > step:
            _remove(path)


def _remove(path: Path) -> None:
    """Deletes a checkpoint; what else lies in its folder stays there."""
    with guarded(path):
        for name in (_FACTS, _STATE):
            (path / name).unlink(missing_ok=True)
    with suppress(OSError):
        path.rmdir()


def latest_checkpoint(folder: Path, vouched: Mapping[str, str] | None = None) -> tuple[int, Path] | None:
    """Returns the highest step whose checkpoint is complete and unchanged, and its folder; None without one.

    Ordered by step, never by time; a damaged one is passed over, and so is another run's.

    Args:
        folder: Where checkpoints lie.
        vouched: The sha256 of the tensors of those that the run is known to have written, by their names.
    """
    return next((found for found in _checkpoints(folder) if not _fault(*found, vouched)), None)


def checkpoint_of(folder: Path, step: int, vouched: Mapping[str, str] | None = None) -> Path | None:
    """Returns the folder of a step's checkpoint; None where there is none that is whole.

    Args:
        folder: Where checkpoints lie.
        step: The step.
        vouched: As for `latest_checkpoint`.
    """
    found = (path for other, path in _checkpoints(folder) if other == step)
    return next((path for path in found if not _fault(step, path, vouched)), None)


def damaged_checkpoints(folder: Path, vouched: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the names of those that `latest_checkpoint` passes over, which are newer than the one that it returns.

    With each, why: "is damaged", "can't be read" and what the system says, or that the run wrote another.

    Args:
        folder: Where checkpoints lie.
        vouched: As for `latest_checkpoint`.
    """
    found = ((path.name, _fault(step, path, vouched)) for step, path in _checkpoints(folder))
    return dict(takewhile(lambda one: bool(one[1]), found))


def state_file(step: int) -> str:
    """Returns where the tensors of a step's checkpoint lie in the folder of all."""
    return f"step-{step:08d}/{_STATE}"


def state_facts(path: Path) -> dict[str, Any]:
    """Returns size and sha256 of the tensors of a checkpoint that has been written just now."""
    return {"bytes": (path / _STATE).stat().st_size, "sha256": parse_json(read_regular(path / _FACTS))["sha256"]}


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Returns the state that was written.

    Raises:
        TrainingError: The file is none that can be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path / _STATE)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"it can't be read: {error}", where=str(path / _STATE), hint=_EARLIER) from None
    return state


def read_evaluations(path: Path) -> list[Any]:
    """Returns what was written of evaluations; nothing where that can't be read."""
    try:
        found = parse_json(read_regular(path / _FACTS))["evaluations"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yields steps and folders, the highest step first; what a link leads to is no run's own."""
    there = () if folder.is_symlink() else folder.glob("step-*")
    named = ((_NAME.fullmatch(path.name), path) for path in there if not path.is_symlink())
    return iter(sorted(((int(match[1]), path) for match, path in named if match), reverse=True))


def _fault(step: int, path: Path, vouched: Mapping[str, str] | None = None) -> str:
    """Says why a checkpoint is not used; nothing where it is complete and unchanged."""
    try:
        facts = parse_json(read_regular(path / _FACTS))
        if facts["sha256"] != (vouched or {}).get(path.name, facts["sha256"]):
            return "is not the one that the run wrote"
        whole = facts["step"] == step and facts["sha256"] == sha256_of(path / _STATE)
    except FileNotFoundError:
        return "is damaged"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return "is damaged"
    return "" if whole else "is damaged"
