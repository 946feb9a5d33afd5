"""The weights of single layers as the base model's files hold them, for adapters that start from those."""

from __future__ import annotations

from functools import cached_property

import torch

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.model.file_tensors import read_tensor
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.outer_layers import outer_weight
from graftkit.model.stored_weights import StoredWeights

__all__ = ["FileOriginals"]


class FileOriginals:
    """Reads a layer's weight when it is asked for; until then nothing is read, and nothing is planned.

    Args:
        files: The opened base model.
        quantizer: What stored the model's weights.
        device: Where the model computes.
        dtype: What it computes in.
    """

    def __init__(self, files: BaseModelFiles, quantizer: Quantizer, device: torch.device, dtype: torch.dtype) -> None:
        self._files = files
        self._quantizer = quantizer
        self._device = device
        self._dtype = dtype
        self._last: dict[str, torch.Tensor] = {}

    @cached_property
    def _plan(self) -> ModelPlan:
        return plan_base_model(self._files, self._dtype)

    @torch.no_grad()
    def original(self, layer: LayerInfo) -> torch.Tensor | None:
        """Reads a layer's weight, `[out, in]`, float32, on the CPU.

        Returns:
            The weight, or None where the quantizer took it over and its source can't dequantize it.

        Raises:
            ModelError: It can't be read.
        """
        stack = self._plan.experts.get(layer.path.rpartition(".")[0]) if layer.kind == "experts" else None
        tensor = self._made(stack.path if stack else self._read_as(f"{layer.path}.weight"))
        if tensor is None:
            return None
        if stack:
            tensor = tensor[int(layer.path.rpartition(".")[2])]
        transposed = stack.transposed if stack else layer.transposed
        matrix = tensor.T if transposed else tensor
        return matrix.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a matrix `[out, in]` as the layer's own weight was stored."""
        placed = weight.detach().to(self._device).to(self._dtype)
        return outer_weight(placed, layer) if layer in self._plan.outer else self._quantizer.quantize(placed, layer)

    def forget(self) -> None:
        """Lets go of what was read and planned, once every layer is adapted."""
        self._last = {}
        self.__dict__.pop("_plan", None)

    def _read_as(self, name: str) -> str:
        """Returns the name under which the files have a tensor that several of the model's names are one of."""
        return next((shared for shared in self._plan.names[name] if shared in self._plan.tensors.makers), name)

    def _made(self, target: str) -> torch.Tensor | None:
        """Returns one of the model's tensors, made of the file's; None where those can't be dequantized."""
        if target not in self._last:  # a stack's experts are asked for one after the other, and share it
            self._last = {}
            maker = self._plan.tensors.makers[target]
            found = {name: read_tensor(self._files, name) for name in maker.sources}
            if any(isinstance(part, StoredWeight) and part.dequantize is None for part in found.values()):
                return None
            stored = StoredWeights(self._plan, self._quantizer, self._device)
            dense = {name: stored.dense(name, part, target) for name, part in found.items()}
            self._last = maker.make(dense, self._plan.skeleton)
        return self._last[target]
