"""Whether a plugin left alone what it was not given to change: files beside its own, and the trained model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftkit.host.guard import report_of, wrong_result
from graftkit.store.file_states import changed_files, file_states
from graftkit.visible import first_of

__all__ = ["files_left_alone", "model_left_alone"]

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def files_left_alone(exporter: object, folder: Path | None, own: Path) -> Iterator[None]:
    """Makes sure that an exporter changes no file of a run's but those in the folder that it was given.

    Args:
        exporter: The exporter.
        folder: The run's folder; None where there is none.
        own: The folder that it was given.

    Raises:
        PluginCallError: It changed or removed a file; what it added is a notice.
    """
    before = {} if folder is None else file_states(folder, own)
    yield
    now = {} if folder is None else file_states(folder, own)
    changed = changed_files(before, now)
    if changed:
        told = f"changed or removed {first_of(changed)} of {folder}, which is not in the folder that it was given"
        raise wrong_result(exporter, "export", told)
    new = [name for name in now if name not in before]
    if new:
        report_of(exporter, f"its exporter wrote {first_of(new)} in {folder}, outside of the folder that it was given")


@contextmanager
def model_left_alone(exporter: object, network: nn.Module | None) -> Iterator[None]:
    """Makes sure that an exporter leaves the trained model as it is: others are going to write it, too.

    Args:
        exporter: The exporter.
        network: The model; None where it is not in memory.

    Raises:
        PluginCallError: It changed a tensor.
    """
    before = {} if network is None else _sums(network)
    yield
    now = {} if network is None else _sums(network)
    changed = [name for name, value in before.items() if now.get(name) != value]
    if changed:
        raise wrong_result(exporter, "export", f"changed {first_of(changed)} of the trained model that it was given")


@torch.no_grad()
def _sums(network: nn.Module) -> dict[str, list[int]]:
    """Returns two sums of each parameter's and buffer's bits, by name, that tell rows and columns in another order."""
    tensors: dict[str, Any] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {
        name: _sums_of(tensor.detach())
        for name, tensor in tensors.items()
        if tensor.element_size() in _INTEGERS and tensor.numel() and not tensor.is_meta
    }


def _sums_of(tensor: torch.Tensor) -> list[int]:
    bits = tensor.contiguous().view(_INTEGERS[tensor.element_size()])
    rows = bits.reshape(-1, tensor.shape[-1] if tensor.ndim else 1)
    lines = [rows.sum(axis, dtype=torch.int64) for axis in (0, 1)]
    return [int((line * torch.arange(1, len(line) + 1, device=line.device)).sum()) for line in lines]
