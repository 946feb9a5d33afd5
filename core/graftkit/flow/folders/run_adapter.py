"""Reads the adapter that a run has trained: what is said of it, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from graftkit.errors import FolderError
from graftkit.flow.folders.refused_files import check_tensor_header
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import open_regular, read_regular
from graftkit.option_names import option

__all__ = ["WholeParameters", "adapter_facts", "read_adapter", "read_tensors", "whole_of_run"]


def _adapter_again() -> str:
    return f"Put the file back; a run that has not finished writes it again with {option('resume')}."


@dataclass(frozen=True, slots=True)
class WholeParameters:
    """Whole parameters that were trained beside an adapter, by name, and whether two of them are one tied matrix."""

    names: Sequence[str] = ()
    tied: bool = False


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Returns what a run says of its adapter, and the adapter's tensors.

    Raises:
        FolderError: They are missing or damaged, or can't be read.
    """
    return adapter_facts(folder / "adapter" / "adapter.json"), read_tensors(folder / "adapter" / "adapter.safetensors")


def adapter_facts(path: Path) -> dict[str, Any]:
    """Reads what a run says of its adapter.

    Raises:
        FolderError: It is missing or damaged, or can't be read.
    """
    try:
        data = parse_json(read_regular(path))
    except FileNotFoundError:
        raise FolderError("it is missing", where=str(path), hint=_adapter_again()) from None
    except OSError as error:
        raise FolderError(f"it can't be read: {error.strerror}", where=str(path), hint=_adapter_again()) from None
    except ValueError as error:
        raise FolderError(f"it is damaged: it is no JSON: {error}", where=str(path), hint=_adapter_again()) from None
    facts = data if isinstance(data, dict) else {}
    for key, kind in (("targets", list), ("tokenizer_fingerprint", str)):
        if not isinstance(facts.get(key), kind):
            raise FolderError(f"it is damaged: it does not say '{key}'", where=str(path), hint=_adapter_again())
    return facts


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads an adapter's tensors.

    Raises:
        FolderError: They are missing or damaged, or can't be read.
    """
    from safetensors.torch import load_file

    try:
        open_regular(path).close()
    except FileNotFoundError:
        raise FolderError("it is missing", where=str(path), hint=_adapter_again()) from None
    except OSError as error:
        raise FolderError(f"it can't be read: {error.strerror}", where=str(path), hint=_adapter_again()) from None
    try:
        check_tensor_header(path)
        state: dict[str, torch.Tensor] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path), hint=_adapter_again()) from None
    return state


def whole_of_run(facts: Mapping[str, Any], folder: Path) -> WholeParameters:
    """Returns what a run's adapter.json says of whole parameters."""
    names = facts.get("saved_modules", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        where = str(folder / "adapter" / "adapter.json")
        raise FolderError("it is damaged: 'saved_modules' is no list of names", where=where, hint=_adapter_again())
    return WholeParameters(names, facts.get("ties_saved") is True)
