"""The tensors that a base model's files give, looked at where they are read: whoever gave them is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from graftkit.host.guard import wrong_result
from graftkit.host.results import kind_named
from graftkit.interfaces.model_source import INTEGERS, BaseModelFiles
from graftkit.interfaces.stored_weight import StoredWeight

__all__ = ["read_tensor", "read_tensors"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The types that are calculated with; smaller ones are numbers only with their scales."""


def read_tensors(files: BaseModelFiles) -> Iterator[tuple[str, torch.Tensor | StoredWeight]]:
    """Yields each tensor by name, as `files.read` does.

    Args:
        files: The opened base model.

    Raises:
        PluginCallError: What is given is no tensor of the files', or not as `files.tensors` says, or comes again.
        ModelError: A tensor can't be read.
    """
    pairs, given = files.read(), set[str]()
    if not isinstance(pairs, Iterable):
        raise wrong_result(files, "read", f"gave {kind_named(pairs)}, not an iterator of names and tensors")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise wrong_result(files, "read", f"gave {kind_named(pair)}, not a name and a tensor")
        name, found = pair
        wrong = f"gave the tensor '{name}' again" if name in given else _wrong_with(files, name, found)
        if wrong:
            raise wrong_result(files, "read", wrong)
        given.add(name)
        yield name, found


def read_tensor(files: BaseModelFiles, name: str) -> torch.Tensor | StoredWeight:
    """Returns one tensor, as `files.tensor` does.

    Args:
        files: The opened base model.
        name: One of `files.tensors`.

    Raises:
        PluginCallError: What is given is not as `files.tensors` says.
        ModelError: It can't be read.
    """
    found = files.tensor(name)
    wrong = _wrong_with(files, name, found)
    if wrong:
        raise wrong_result(files, "tensor", wrong)
    return found


def _wrong_with(files: BaseModelFiles, name: str, found: object) -> str:
    info = files.tensors.get(name)
    if info is None:
        return f"gave '{name}', which is none of its tensors"
    if not isinstance(found, torch.Tensor | StoredWeight):
        return f"gave {kind_named(found)} as the tensor '{name}', not a tensor"
    if tuple(found.shape) != tuple(info.shape):
        return f"gave a tensor of the shape {list(found.shape)} as '{name}', which has {list(info.shape)}"
    if isinstance(found, torch.Tensor):
        if found.device.type != "cpu":
            return f"gave the tensor '{name}' on the device {found.device}, not on the CPU"
        if found.layout != torch.strided:
            return f"gave the tensor '{name}' in the layout {found.layout}, not as a dense one"
        if not found.is_floating_point() and info.dtype not in INTEGERS:
            return f"gave a tensor of {found.dtype} as '{name}', which is of {info.dtype}"
        if found.is_floating_point() and found.dtype not in _FLOATS:
            return f"gave a tensor of {found.dtype} as '{name}', not one of float32, float16 or bfloat16"
    return ""
