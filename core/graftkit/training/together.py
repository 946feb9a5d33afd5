"""What processes that train one model exchange: gradients, and the state to go on from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.training.processes import Processes

__all__ = ["check_same", "receive_state", "send_parameters", "send_state", "sum_gradients"]


@torch.no_grad()
def sum_gradients(parameters: Sequence[nn.Parameter], processes: Processes) -> None:
    """Adds the gradients of all processes up, in one sum over one flat tensor.

    A parameter that no process has a gradient of, as of an expert that no token chose, gets none.

    Args:
        parameters: What is trained, in the same order in every process.
        processes: The processes.
    """
    if processes.count == 1 or not parameters:
        return
    device = parameters[0].device
    known = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.float32, device=device)
    gradients = [
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).float().flatten()
        for parameter in parameters
    ]
    flat = torch.cat([known, *gradients])
    processes.sum_(flat)
    somewhere, *summed = torch.split(flat, [len(known), *map(len, gradients)])
    for parameter, has_one, gradient in zip(parameters, somewhere.tolist(), summed, strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if has_one else None


def send_state(processes: Processes, step: int, state: Mapping[str, torch.Tensor]) -> None:
    """Sends the other processes what the next step depends on.

    Args:
        processes: The processes; this one's rank is 0.
        step: How many steps have been taken.
        state: Parameters and moments, by name.
    """
    if processes.count == 1:
        return
    kinds = {name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in state.items()}
    processes.announce({"state": kinds, "after": step})
    for tensor in state.values():
        processes.broadcast_(tensor.detach().clone().contiguous())


def receive_state(processes: Processes, said: Mapping[str, Any]) -> tuple[int, dict[str, torch.Tensor]]:
    """Returns what `send_state` sends: how many steps have been taken, and the tensors by name.

    Args:
        processes: The processes; this one's rank is not 0.
        said: The command that it begins with.
    """
    found = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, (dtype, shape) in said["state"].items()}
    for tensor in found.values():
        processes.broadcast_(tensor)
    return int(said["after"]), found


@torch.no_grad()
def send_parameters(processes: Processes, parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process what that of rank 0 has in some parameters.

    Args:
        processes: The processes.
        parameters: They, in the same order in each.
    """
    if processes.count == 1:
        return
    for parameter in parameters:
        tensor = parameter.detach().clone(memory_format=torch.contiguous_format)
        processes.broadcast_(tensor)
        parameter.copy_(tensor)


def check_same(processes: Processes, state: Mapping[str, torch.Tensor]) -> None:
    """Makes sure that all processes have come to the same state, bit for bit.

    Raises:
        TrainingError: One has not.
    """
    if processes.count == 1:
        return
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    found = processes.gather(digest.hexdigest())
    others = [str(rank) for rank, value in enumerate(found) if value != found[0]]
    if others:
        raise TrainingError(
            f"what was trained is not the same in every process: rank {', '.join(others)} differs from rank 0",
            hint="Are their processors, drivers and versions of torch the same?",
        )
