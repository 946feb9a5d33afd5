"""Streams a base model's weights in, one tensor at a time, each stored as its quantizer says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.linear import FrozenLinear
from graftkit.model.skeleton import build_skeleton
from graftkit.model.targets import linear_layers

__all__ = ["Loader", "load_base_model", "load_dense_model"]

OnTensor = Callable[[int, int], None]


def load_base_model(
    files: BaseModelFiles,
    quantizer: Quantizer,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    on_tensor: OnTensor | None = None,
) -> nn.Module:
    """Builds the model with its linear layers frozen and quantized.

    Args:
        files: The opened base model.
        quantizer: Stores the weights of the linear layers inside the blocks.
        device: Where the model computes.
        dtype: What it computes in; embeddings, norms and the output layer are stored in it.
        on_tensor: Called after each tensor with how many are read and how many there are.

    Raises:
        ModelError: A tensor is missing, left over, of another shape, or holds NaN or infinity.
    """
    return Loader(files, quantizer, device, dtype).load(on_tensor)


def load_dense_model(files: BaseModelFiles, quantizer: Quantizer, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Builds the plain transformers model that the quantized one computes: its weights dequantized, float32.

    Args:
        files: The opened base model.
        quantizer: What stored the weights.
        dtype: What the quantized model computed in: its weights were rounded to that first.
    """
    model = load_base_model(files, quantizer, device=torch.device("cpu"), dtype=dtype).float()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, FrozenLinear):
            weight = layer.frozen.dequantize(torch.float32)
            dense = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta")
            dense.weight = nn.Parameter(weight, requires_grad=False)
            dense.bias = layer.bias  # type: ignore[assignment]
            model.set_submodule(name, dense)
    return model


class Loader:
    """Puts tensors into a skeleton."""

    def __init__(self, files: BaseModelFiles, quantizer: Quantizer, device: torch.device, dtype: torch.dtype) -> None:
        self._files = files
        self._quantizer = quantizer
        self._device = device
        self._dtype = dtype
        self._model = build_skeleton(files.config, files.reference)
        self._linear = linear_layers(files.tensors)
        self._expected = {name: tuple(p.shape) for name, p in self._model.named_parameters()}
        self._copies: dict[str, torch.Tensor] = {}
        self._check_names()

    def load(self, on_tensor: OnTensor | None = None) -> nn.Module:
        """Reads every tensor and returns the model.

        Raises:
            ModelError: A tensor holds NaN or infinity, or can't be stored.
        """
        with torch.no_grad():
            total = len(self._files.tensors)
            for number, (name, tensor) in enumerate(self._files.read(), 1):
                self._put(name, tensor)
                if on_tensor:
                    on_tensor(number, total)
        self._check_copies()
        self._model.to(self._device)
        return self._model.requires_grad_(False)

    def _check_names(self) -> None:
        """Compares names and shapes before anything is read."""
        stored = {name: info.shape for name, info in self._files.tensors.items()}
        missing = sorted(self._expected.keys() - stored.keys())
        left_over = sorted(stored.keys() - self._expected.keys() - self._tied_copies(stored))
        for problem, names in (("lacks", missing), ("has, unknown to the architecture,", left_over)):
            if names:
                raise ModelError(
                    f"it {problem} {len(names)} tensors: {_some(names)}",
                    where=self._files.reference,
                    hint="The weights and config.json do not belong together, or the files are incomplete.",
                )
        for name, shape in self._expected.items():
            if stored[name] != shape:
                raise ModelError(
                    f"tensor '{name}' has shape {list(stored[name])}; config.json says {list(shape)}",
                    where=self._files.reference,
                )

    def _check_copies(self) -> None:
        """Refuses a file that holds two different tensors for what config.json says is one."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        for name, copy in self._copies.items():
            if name in parameters and not torch.equal(self._dense(copy), parameters[name]):
                raise ModelError(
                    f"config.json ties '{name}' to another tensor, but the file holds two that differ",
                    where=self._files.reference,
                    hint="If they are meant to differ, config.json should say tie_word_embeddings: false.",
                )

    def _tied_copies(self, stored: Mapping[str, object]) -> set[str]:
        """Returns the names under which a file repeats tensors that the model shares."""
        every = dict(self._model.named_parameters(remove_duplicate=False))
        return {name for name in stored if name in every and name not in self._expected}

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        if name not in self._expected:
            self._copies[name] = tensor  # of a tensor that the model shares; compared at the end
            return
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"tensor '{name}' holds NaN or infinity",
                where=self._files.reference,
                hint="Download it again.",
            )
        path, _, last = name.rpartition(".")
        module = self._model.get_submodule(path)
        if last == "weight" and path in self._linear and isinstance(module, nn.Linear):
            self._put_linear(path, module, tensor)
        elif isinstance(module, FrozenLinear):
            module.bias = nn.Parameter(self._dense(tensor), requires_grad=False)
        else:
            self._put_dense(name, tensor)

    def _put_linear(self, path: str, module: nn.Linear, tensor: torch.Tensor) -> None:
        weight = self._quantizer.quantize(tensor.to(self._device).to(self._dtype))
        bias = None if module.bias is None else module.bias.detach()
        self._model.set_submodule(path, FrozenLinear(weight, bias))

    def _put_dense(self, name: str, tensor: torch.Tensor) -> None:
        """Replaces a parameter everywhere that the model shares it."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        old = parameters[name]
        new = nn.Parameter(self._dense(tensor), requires_grad=False)
        for shared, parameter in parameters.items():
            if parameter is old:
                path, _, last = shared.rpartition(".")
                setattr(self._model.get_submodule(path), last, new)

    def _dense(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device).to(self._dtype, copy=True)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")
