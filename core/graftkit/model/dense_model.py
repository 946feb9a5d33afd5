"""transformers' own model of stored weights, dequantized, float32: what a quantized one, or an export, computes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.experts import ExpertStack
from graftkit.model.file_tensors import read_tensors
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.parts import compute_in_float32, is_text
from graftkit.model.skeleton import build_skeleton, leave_out_pooler
from graftkit.store.system import guarded
from graftkit.visible import first_of

__all__ = ["load_dense_model", "load_plain_model"]

_LARGE = 1 << 16
"""Bytes from which on a tensor is worth a file."""


def load_dense_model(
    files: BaseModelFiles, quantizer: Quantizer, dtype: torch.dtype = torch.float32, folder: Path | None = None
) -> nn.Module:
    """Builds the plain transformers model that the quantized one computes: its weights dequantized, float32.

    Args:
        files: The opened base model.
        quantizer: What stored the weights.
        dtype: What the quantized model computed in: its weights were rounded to that first.
        folder: Where the weights are kept in files without a name, mapped, which need no memory until they are read; in
            memory where left out.
    """
    model: Any = load_base_model(files, quantizer, device=torch.device("cpu"), dtype=dtype)
    stacks = [name for name, module in model.named_modules() if isinstance(module, ExpertStack)]
    for name in stacks:
        owner, _, last = name.rpartition(".")
        module: nn.Module = model.get_submodule(owner)
        tensor = model.get_submodule(name).stacked(lambda layer: layer.frozen.dequantize(torch.float32))
        delattr(module, last)
        module.register_parameter(last, nn.Parameter(_kept(tensor, folder), requires_grad=False))
    if stacks:
        _order_parameters(model, build_skeleton(files.config, files.reference), stacks)
    for name in [name for name, layer in model.named_modules() if isinstance(layer, FrozenLinear)]:
        layer: Any = model.get_submodule(name)
        model.set_submodule(name, _dense_layer(layer, folder))
        del layer  # its frozen weight goes before the next is made
    text = is_text(model)
    for name, parameter in model.named_parameters():
        if text(name) and parameter.dtype != torch.float32:
            parameter.data = _kept(parameter.data.float(), folder)
    compute_in_float32(model)
    return model  # type: ignore[no-any-return]


@torch.no_grad()
def load_plain_model(
    files: BaseModelFiles, folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> nn.Module:
    """Builds the transformers model of files whose tensors have its parameters' own names, float32.

    Args:
        files: The files.
        folder: Where the weights are kept in files without a name, mapped.
        change: Gives for each name and tensor what is to be in its place.

    Raises:
        ModelError: A tensor is missing, unknown to the architecture, or of another shape.
    """
    model: Any = build_skeleton(files.config, files.reference, tensors=len(files.tensors))
    leave_out_pooler(model, files)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, found in read_tensors(files):
        tensor = found.float() if isinstance(found, torch.Tensor) else found.dequantize() if found.dequantize else None
        if tensor is None or shapes.pop(name, None) != tensor.shape:
            raise ModelError(f"tensor '{name}' is of another shape or type than its model", where=files.reference)
        owner, _, last = name.rpartition(".")
        kept = nn.Parameter(_kept(change(name, tensor), folder), requires_grad=False)
        setattr(model.get_submodule(owner), last, kept)
    model.tie_weights()
    if shapes:
        raise ModelError(f"it lacks {len(shapes)} tensors: {first_of(sorted(shapes))}", where=files.reference)
    compute_in_float32(model)
    return model.requires_grad_(False).eval()  # type: ignore[no-any-return]


def _order_parameters(model: nn.Module, skeleton: nn.Module, stacks: Iterable[str]) -> None:
    """Gives the modules that hold stacks their parameters in the architecture's order, in which PEFT wraps them."""
    for owner in {name.rpartition(".")[0] for name in stacks}:
        own = model.get_submodule(owner)._parameters
        for name in skeleton.get_submodule(owner)._parameters:
            own[name] = own.pop(name)


def _kept(tensor: torch.Tensor, folder: Path | None) -> torch.Tensor:
    """Returns the tensor, float32, from a mapped file of its own where there is a folder for it.

    Raises:
        StorageError: The system refused to write it.
    """
    if folder is None or tensor.nbytes < _LARGE:
        return tensor
    with guarded(folder), tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(tensor.contiguous().numpy().data)
    mapped = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=torch.float32)
    with suppress(PermissionError):  # Windows keeps it: it goes with the folder
        Path(file.name).unlink()
    return mapped.view(tensor.shape)


def _dense_layer(layer: FrozenLinear, folder: Path | None) -> nn.Module:
    """Returns the layer that the architecture itself has."""
    from transformers.pytorch_utils import Conv1D

    weight = layer.frozen.dequantize(torch.float32)
    size_out, size_in = weight.shape
    dense: Any
    with torch.device("meta"):
        dense = Conv1D(size_out, size_in) if layer.transposed else nn.Linear(size_in, size_out, layer.bias is not None)
    weight = _kept(weight.T.contiguous() if layer.transposed else weight, folder)
    dense.weight = nn.Parameter(weight, requires_grad=False)
    dense.bias = layer.bias
    return dense  # type: ignore[no-any-return]
