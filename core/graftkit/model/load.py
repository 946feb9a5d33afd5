"""Streams a base model's weights in, one tensor at a time, each stored as its quantizer says."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.model.experts import put_stack
from graftkit.model.file_tensors import read_tensor, read_tensors
from graftkit.model.head import head_parameters
from graftkit.model.linear import FrozenLinear
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.parts import move_text, tower_tensors
from graftkit.model.sharded import BlockSharder, SharedBlocks
from graftkit.model.stored_weights import StoredWeights
from graftkit.model.weight_names import PlannedWeight, remember_conversions
from graftkit.visible import first_of

__all__ = ["Loader", "load_base_model"]

OnTensor = Callable[[int, int], None]


def load_base_model(
    files: BaseModelFiles,
    quantizer: Quantizer,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    on_tensor: OnTensor | None = None,
    shared: SharedBlocks | None = None,
) -> nn.Module:
    """Builds the model with its linear layers frozen and quantized.

    Args:
        files: The opened base model.
        quantizer: Stores the weights of the linear layers inside the blocks, and of each expert.
        device: Where the model computes.
        dtype: What it computes in; embeddings, norms and the output layer are stored in it. The towers of a multimodal
            model stay on the CPU, in the file's dtype.
        on_tensor: Called after each tensor with how many are read and how many there are.
        shared: Keeps each block's frozen weights among several processes; this one has all of them where left out.

    Raises:
        ModelError: A tensor is missing, left over, of another shape, or holds NaN or infinity.
    """
    return Loader(plan_base_model(files, dtype), quantizer, device).load(on_tensor, shared)


class Loader:
    """Puts tensors into the skeleton of a plan, which can be done once.

    Args:
        plan: The model.
        quantizer: Stores the weights of the linear layers.
        device: Where the model computes.
    """

    def __init__(self, plan: ModelPlan, quantizer: Quantizer, device: torch.device) -> None:
        self._plan = plan
        self._files = plan.files
        self._quantizer = quantizer
        self._device = device
        self._weights = StoredWeights(plan, quantizer, device)
        self._model = plan.skeleton
        self._in_float32 = _kept_in_float32(self._model, head_parameters(self._model, plan.head))
        self._towers = tower_tensors(self._model)
        self._copies: dict[str, torch.Tensor] = {}
        self._filled: set[str] = set()
        self._sharder: BlockSharder | None = None

    @torch.no_grad()
    def load(self, on_tensor: OnTensor | None = None, shared: SharedBlocks | None = None) -> nn.Module:
        """Streams every tensor in. The memory needed beyond the model's is what one of its tensors is made of.

        Where processes share the frozen weights, each reads some of the blocks, and gives them to the others; that
        takes a block's memory twice.

        Args:
            on_tensor: As for `load_base_model`.
            shared: As for `load_base_model`.

        Raises:
            ModelError: A tensor can't be read, or holds NaN or infinity; or two differ that are to be one.
        """
        if shared is not None:
            frozen = [*self._plan.layers, *(layer for stack in self._plan.stacks for layer in stack.layers())]
            self._sharder = BlockSharder(self._model, [layer.path for layer in frozen], shared)
        waiting: dict[str, torch.Tensor] = {}
        planned = {name: weight for weight in self._plan.tensors.weights for name in weight.sources}
        total = len(self._files.tensors)
        for number, (name, found) in enumerate(self._read(planned), 1):
            weight = planned.get(name)
            if found is not None and weight is not None and not self._take_over(name, weight, found):
                waiting[name] = self._weights.dense(name, found, weight.target)
                if waiting.keys() >= weight.sources.keys():
                    self._make(weight, {source: waiting.pop(source) for source in weight.sources})
            if on_tensor:
                on_tensor(number, total)
        for name in self._plan.new:
            self._put(name, torch.zeros(self._model.get_parameter(name).shape))
        if self._sharder is not None:
            self._sharder.give_out(self._model, self._put_given, self._device)
        self._check_whole()
        self._check_copies()
        move_text(self._model, self._device)
        remember_conversions(self._model, self._plan.tensors)
        model: nn.Module = self._model.requires_grad_(False).eval()
        return model

    def _read(self, planned: Mapping[str, PlannedWeight]) -> Iterator[tuple[str, torch.Tensor | StoredWeight | None]]:
        """Yields every tensor by name; None for those that another process reads, or none."""
        if self._sharder is None:
            yield from read_tensors(self._files)
            return
        for name in self._files.tensors:
            weight = planned.get(name)
            yield name, read_tensor(self._files, name) if weight is not None and self._reads(weight) else None

    def _reads(self, weight: PlannedWeight) -> bool:
        """Tells whether this process reads a weight: others give it those of theirs."""
        made = [name for name, maker in self._plan.tensors.makers.items() if maker is weight]
        return not made or any(map(self._is_own, made))

    def _is_own(self, name: str) -> bool:
        """Tells whether this process itself makes one of the model's tensors."""
        if self._sharder is None:
            return True
        layers = self._plan.layers_of(name)
        return not layers or self._sharder.reads(layers[0].path)

    def _take_over(self, name: str, weight: PlannedWeight, found: torch.Tensor | StoredWeight) -> bool:
        """Has the quantizer take over a weight of layers as the file stores it; tells whether it did."""
        frozen = self._weights.taken_over(name, weight, found)
        if frozen is None:
            return False
        self._put_frozen(weight.target, frozen)
        self._filled.add(weight.target)
        return True

    def _make(self, weight: PlannedWeight, tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in weight.make(tensors, self._model).items():
            if not self._is_own(name):
                continue
            if self._filled.isdisjoint(self._plan.names[name]):
                self._put(name, tensor)
                self._filled.add(name)
            else:
                self._copies[name] = self._stored(name, tensor)  # compared at the end

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        if self._plan.layers_of(name):
            self._put_frozen(name, self._quantized(name, tensor))
            return
        path, _, last = name.rpartition(".")
        module = self._model.get_submodule(path)
        if last in module._buffers:
            own = torch.float32 if self._in_float32(name) else module._buffers[last].dtype
            module._buffers[last] = tensor if name in self._towers else tensor.to(own)
            return
        new = nn.Parameter(self._stored(name, tensor), requires_grad=False)
        for shared in self._plan.names[name]:
            path, _, last = shared.rpartition(".")
            setattr(self._model.get_submodule(path), last, new)

    def _put_frozen(self, target: str, frozen: Sequence[FrozenWeight]) -> None:
        """Puts the weight of a linear layer, or those of a stack's experts, in its place."""
        layers, stack = self._plan.layers_of(target), self._plan.experts.get(target)
        if stack is not None:
            put_stack(self._model, stack, [FrozenLinear(*pair) for pair in zip(frozen, layers, strict=True)])
            return
        path = layers[0].path
        bias = self._model.get_submodule(path).bias
        self._model.set_submodule(path, FrozenLinear(frozen[0], layers[0], None if bias is None else bias.detach()))

    def _put_given(self, weights: Mapping[str, FrozenWeight]) -> None:
        """Puts weights that other processes have read in the places of layers, by their paths."""
        for target in (*self._plan.linear, *self._plan.experts):
            frozen = [weights[layer.path] for layer in self._plan.layers_of(target) if layer.path in weights]
            if frozen:
                self._put_frozen(target, frozen)

    def _quantized(self, target: str, tensor: torch.Tensor) -> list[FrozenWeight]:
        """Returns the weight of a linear layer, or those of a stack's experts, as the quantizer stores it."""
        layers, stack = self._plan.layers_of(target), self._plan.experts.get(target)
        transposed, matrices = (stack.transposed, tensor) if stack else (layers[0].transposed, [tensor])
        pairs = zip(layers, matrices, strict=True)
        return [self._frozen(layer, matrix, transposed=transposed) for layer, matrix in pairs]

    def _frozen(self, layer: LayerInfo, tensor: torch.Tensor, *, transposed: bool) -> FrozenWeight:
        weight = tensor.to(self._device).to(self._plan.dtype)
        return self._quantizer.quantize(weight.T.contiguous() if transposed else weight, layer)

    def _stored(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a tensor where and as the model computes with it; those of towers as the file has them."""
        if name in self._towers:
            return tensor.clone()
        dtype = torch.float32 if self._in_float32(name) else self._plan.dtype
        return tensor.to(self._device).to(dtype, copy=True)

    def _check_whole(self) -> None:
        """Makes sure that the model has no tensor left that nothing was read for, whatever the headers promised."""
        empty = [name for name, tensor in self._model.state_dict().items() if tensor.is_meta]
        if empty:
            raise ModelError(
                f"nothing was read for {len(empty)} tensors: {first_of(empty)}",
                where=self._files.reference,
                hint="The files changed meanwhile, or hold this architecture in a form that can't be loaded.",
            )

    def _check_copies(self) -> None:
        """Refuses a file that holds two different tensors for what config.json says is one; the copies are given back.

        Raises:
            ModelError: It does.
        """
        own, copies, self._copies = self._model.state_dict(), self._copies, {}
        for name, copy in copies.items():
            if not torch.equal(copy, own[name]):
                raise ModelError(
                    f"config.json ties '{name}' to another tensor, but the file holds two that differ",
                    where=self._files.reference,
                    hint="If they are meant to differ, config.json should say tie_word_embeddings: false.",
                )


def _kept_in_float32(model: Any, head: Collection[str]) -> Callable[[str], bool]:
    """Returns what tells by a tensor's name whether it is computed with in float32, whatever the rest is.

    That is what the architecture says of itself, and a head.
    """
    patterns = [re.compile(pattern.replace("*", ".*")) for pattern in model._keep_in_fp32_modules_strict or ()]
    return lambda name: name in head or any(pattern.search(name) for pattern in patterns)
