"""Computes a model in float32 with no more than one of its blocks in float32 at a time."""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["exact_constants", "float32_by_block", "keep_exact", "repeated_blocks"]

_PAGEOUT = 21
"""Linux's MADV_PAGEOUT: drops clean pages of a mapped file from memory; what was written to them stays."""
_EXACT = "_exact_constants"


def keep_exact(module: nn.Module, name: str, constant: torch.Tensor) -> None:
    """Keeps a constant's float32 value beside the buffer that holds it rounded to 16 bits.

    Args:
        module: The module that has the buffer.
        name: The buffer's name in it.
        constant: The value, of the buffer's shape, float32.
    """
    setattr(module, _EXACT, {**exact_constants(module), name: constant})


def exact_constants(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """Returns the float32 values of a module's own buffers that hold them rounded, by the buffers' names."""
    found: Mapping[str, torch.Tensor] = getattr(module, _EXACT, {})
    return found


@contextmanager
def float32_by_block(model: nn.Module) -> Iterator[None]:
    """Makes a model compute in float32, whatever its tensors are stored in, within the memory of one block.

    While a block runs its tensors are float32; afterwards they are again as they were stored. Blocks are the items of
    each outermost `nn.ModuleList`. What stands outside of them, such as the output layer, is float32 until the end, but
    for plain embeddings, of which the rows that are looked up are. Constants have the float32 values that are kept of
    them (`keep_exact`). Tensors that lie in a mapped file, as safetensors loads them, are dropped from memory after
    use, where the system can.

    Args:
        model: A `transformers` model.
    """
    from torch import nn

    drop = _dropping()
    blocks, others = repeated_blocks(model)
    outside: list[tuple[torch.Tensor, torch.Tensor]] = []
    handles = []
    for block in blocks.values():
        stored: list[tuple[torch.Tensor, torch.Tensor]] = []
        handles.append(block.register_forward_pre_hook(_raising(block, stored)))
        handles.append(block.register_forward_hook(_restoring(block, stored, drop), always_call=True))
    for module in others:
        if type(module) is nn.Embedding:
            _raise(module, module._buffers, outside)
            handles.append(module.register_forward_hook(lambda module, inputs, rows: rows.float()))
        else:
            _raise(module, {**module._parameters, **module._buffers}, outside)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _restore(outside)
        for module in others:
            for tensor in _tensors(module, recurse=False):
                drop(tensor.data)


def repeated_blocks(model: nn.Module) -> tuple[dict[str, nn.Module], list[nn.Module]]:
    """Returns the items of each outermost `nn.ModuleList` of a model by their paths, and what is outside of them."""
    from torch.nn import ModuleList

    blocks: dict[str, nn.Module] = {}
    others = []
    for path, module in model.named_modules():  # a module comes before those inside it
        if path in blocks or any(path.startswith(f"{inside}.") for inside in blocks):
            continue
        if isinstance(module, ModuleList):
            blocks |= {f"{path}.{name}": block for name, block in module.named_children()}
        else:
            others.append(module)
    return blocks, others


def _tensors(module: nn.Module, recurse: bool) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse)
    yield from module.buffers(recurse)


def _raise(
    module: nn.Module,
    own: Mapping[str, torch.Tensor | None],
    stored: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Makes tensors of a module's own, by their names in it, float32, and notes what they were."""
    import torch

    exact = exact_constants(module)
    for name, tensor in own.items():
        if tensor is not None and tensor.dtype in (torch.bfloat16, torch.float16):
            stored.append((tensor, tensor.data))
            constant = exact.get(name)
            tensor.data = tensor.data.float() if constant is None else constant.to(tensor.device)


def _restore(stored: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensor, data in stored:
        tensor.data = data
    stored.clear()


def _raising(block: nn.Module, stored: list[tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., None]:
    def raise_block(module: nn.Module, inputs: Any) -> None:
        for part in block.modules():
            _raise(part, {**part._parameters, **part._buffers}, stored)

    return raise_block


def _restoring(
    block: nn.Module, stored: list[tuple[torch.Tensor, torch.Tensor]], drop: Callable[[torch.Tensor], None]
) -> Callable[..., None]:
    def restore(module: nn.Module, inputs: Any, output: Any) -> None:
        _restore(stored)
        for tensor in _tensors(block, recurse=True):
            drop(tensor.data)

    return restore


def _dropping() -> Callable[[torch.Tensor], None]:
    """Returns what drops a tensor's pages from memory if it lies in a mapped file; nothing happens elsewhere."""
    ranges = _file_mappings()
    if not ranges:
        return lambda tensor: None
    starts = [start for start, _ in ranges]
    advise: Any = ctypes.CDLL(None).madvise

    def drop(tensor: torch.Tensor) -> None:
        if tensor.device.type != "cpu" or not tensor.nbytes:
            return
        first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        place = bisect_right(starts, first) - 1
        if place < 0 or last > ranges[place][1]:
            return
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(last - start), _PAGEOUT)

    return drop


def _file_mappings() -> list[tuple[int, int]]:
    """Returns the ranges of this process's memory that are files, ascending; none on systems that don't say."""
    path = Path("/proc/self/maps")
    if not sys.platform.startswith("linux") or not path.is_file():
        return []
    found = []
    for line in path.read_bytes().removesuffix(b"\n").split(b"\n"):  # a name may have other ends of lines
        addresses, _, _, _, inode = line.split(maxsplit=5)[:5]
        if inode != b"0":
            start, _, end = addresses.partition(b"-")
            found.append((int(start, 16), int(end, 16)))
    return sorted(found)
