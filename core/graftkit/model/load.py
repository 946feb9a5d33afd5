"""Streams a base model's weights in, one tensor at a time, each stored as its quantizer says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import PLAIN, BaseModelFiles
from graftkit.interfaces.quantizer import AdoptingQuantizer, Quantizer
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.model.experts import StackInfo, put_stack
from graftkit.model.file_tensors import read_tensor, read_tensors
from graftkit.model.head import head_parameters
from graftkit.model.linear import FrozenLinear
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.outer_layers import outer_weight
from graftkit.model.parts import move_text, tower_tensors
from graftkit.model.sharded import BlockSharder, SharedBlocks
from graftkit.model.weight_names import PlannedWeight
from graftkit.visible import first_of

__all__ = [
    "Loader",
    "StoredUse",
    "check_stored_weights",
    "load_base_model",
]

OnTensor = Callable[[int, int], None]

_LARGEST = 1e30
"""What no number of a weight exceeds: quantizers multiply by 127, add scales up, and half precision ends at 3.4e38."""


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


@dataclass(frozen=True, slots=True)
class StoredUse:
    """What becomes of the matrices of layers that a file holds in one quantized format.

    Attributes:
        kind: The format's name.
        kept: How many the quantizer takes over as they lie.
        anew: The others, which are dequantized and given to the quantizer.
        anew_bytes: The bytes that those take in the file; None where that can't be told from the headers.
        can_be_kept: Whether `quantizer: stored` would keep those that this quantizer does not.
    """

    kind: str
    kept: int
    anew: tuple[LayerInfo, ...]
    anew_bytes: int | None
    can_be_kept: bool


def check_stored_weights(files: BaseModelFiles, quantizer: Quantizer) -> list[StoredUse]:
    """Makes sure that each format that the files hold weights in can be used: by the quantizer, or dequantized.

    It reads one weight of a format, the smallest, and none of those that are plain floating point.

    Returns:
        What becomes of the layers' matrices in each format that is none of floating point, as far as that one tells.

    Raises:
        ModelError: One is of a format that neither the quantizer takes over nor the source dequantizes, or is damaged.
    """
    if all(info.dtype in PLAIN for info in files.tensors.values()):
        return []
    return Loader(plan_base_model(files), quantizer, torch.device("cpu")).check_stored()


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
        self._dtype = plan.dtype
        self._model = plan.skeleton
        self._in_float32 = _kept_in_float32(self._model, head_parameters(self._model, plan.head))
        self._towers = tower_tensors(self._model)
        self._copies: dict[str, torch.Tensor] = {}
        self._filled: set[str] = set()
        self._last: dict[str, torch.Tensor] = {}
        self._sharder: BlockSharder | None = None

    @torch.no_grad()
    def original(self, layer: LayerInfo) -> torch.Tensor | None:
        """Reads a layer's weight as the files hold it, `[out, in]`, float32, on the CPU.

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

    def _read_as(self, name: str) -> str:
        """Returns the name under which the files have a tensor that several of the model's names are one of."""
        return next((shared for shared in self._plan.names[name] if shared in self._plan.tensors.makers), name)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a matrix `[out, in]` as `load` stores the layer's own."""
        if layer in self._plan.outer:
            return outer_weight(weight.detach().to(self._device).to(self._dtype), layer)
        return self._frozen(layer, weight.detach(), transposed=False)

    @torch.no_grad()
    def check_stored(self) -> list[StoredUse]:
        """Makes sure that the weights can be used whose stored type is no plain one, as far as one of each type tells.

        Returns:
            What becomes of those of layers.

        Raises:
            ModelError: Neither the quantizer nor the source knows what to do with one.
        """
        uses = []
        planned: dict[str, dict[str, PlannedWeight]] = {}
        for weight in self._plan.tensors.weights:
            for name in weight.sources:
                dtype = self._files.tensors[name].dtype
                if dtype not in PLAIN:
                    planned.setdefault(dtype, {})[name] = weight
        for kind, weights in planned.items():
            adoptable = [name for name, weight in weights.items() if self._plan.adoptable(weight)]
            sample = min(adoptable or weights, key=lambda name: math.prod(self._files.tensors[name].shape))
            found = read_tensor(self._files, sample)
            if not isinstance(found, StoredWeight):
                uses.append(self._use(kind, weights, [], can_be_kept=False))
                continue
            kept = next(self._adopting(sample, weights[sample], found), None) is not None
            left = [name for name in weights if not kept or name not in adoptable]
            if left and found.dequantize is None:
                raise self._unusable(left[0], found.kind)
            part = found.matrix(0) if found.matrix else found
            can_be_kept = bool(adoptable) and not kept and part.freeze is not None
            uses.append(self._use(kind, weights, adoptable if kept else [], can_be_kept=can_be_kept))
        return [use for use in uses if use.kept or use.anew]

    def _use(self, kind: str, weights: Mapping[str, PlannedWeight], kept: list[str], *, can_be_kept: bool) -> StoredUse:
        anew = {name: self._plan.layers_of(weight) for name, weight in weights.items() if name not in kept}
        sizes = [self._files.tensors[name].nbytes for name, layers in anew.items() if layers]
        known = None if None in sizes else sum(size or 0 for size in sizes)
        made = tuple({layer.path: layer for layers in anew.values() for layer in layers}.values())
        return StoredUse(kind, sum(len(self._plan.adoptable(weights[name])) for name in kept), made, known, can_be_kept)

    def _made(self, target: str) -> torch.Tensor | None:
        """Returns one of the model's tensors, made of the file's; None where those can't be dequantized."""
        if target not in self._last:  # a stack's experts are asked for one after the other, and share it
            self._last = {}
            maker = self._plan.tensors.makers[target]
            found = {name: read_tensor(self._files, name) for name in maker.sources}
            if any(isinstance(part, StoredWeight) and part.dequantize is None for part in found.values()):
                return None
            dense = {name: self._dense(name, part) for name, part in found.items()}
            for name, part in dense.items():
                self._check_numbers(name, part, target)
            self._last = maker.make(dense, self._model)
        return self._last[target]

    @torch.no_grad()
    def load(self, on_tensor: OnTensor | None = None, shared: SharedBlocks | None = None) -> nn.Module:
        """Streams every tensor in. The memory needed beyond the model's is what one of its tensors is made of.

        Where processes share the frozen weights, each reads some of the blocks, and gives them to the others; that
        takes a block's memory twice.
        """
        if shared is not None:
            frozen = [*self._plan.layers, *(layer for stack in self._plan.stacks for layer in stack.layers())]
            self._sharder = BlockSharder(self._model, [layer.path for layer in frozen], shared)
        waiting: dict[str, torch.Tensor] = {}
        planned = {name: weight for weight in self._plan.tensors.weights for name in weight.sources}
        total = len(self._files.tensors)
        for number, (name, found) in enumerate(self._read(planned), 1):
            weight = planned.get(name)
            if found is not None and weight is not None and not self._adopt(name, weight, found):
                waiting[name] = self._dense(name, found)
                self._check_numbers(name, waiting[name], weight.target)
                if waiting.keys() >= weight.sources.keys():
                    self._make(weight, {source: waiting.pop(source) for source in weight.sources})
            if on_tensor:
                on_tensor(number, total)
        for name in self._plan.new:
            empty = torch.zeros(self._model.get_parameter(name).shape)
            self._put(name, empty, self._plan.names[name])
        if self._sharder is not None:
            self._sharder.give_out(self._model, self._put_taken, self._device)
        self._check_whole()
        self._check_copies()
        move_text(self._model, self._device)
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

    def _check_numbers(self, name: str, tensor: torch.Tensor, target: str) -> None:
        """Makes sure that a tensor, of which one of the model's is made, can be computed with.

        Raises:
            ModelError: It holds NaN or infinity; or is a weight to be frozen, and holds larger numbers than quantizers
                and half precision can store.
        """
        if not tensor.numel():
            return
        found = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        smallest, largest = (abs(float(end)) for end in found.aminmax())  # both NaN where one number is
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise ModelError(
                f"tensor '{name}' holds NaN or infinity", where=self._files.reference, hint="Download it again."
            )
        if target not in self._plan.linear and target not in self._plan.experts:
            return
        if max(smallest, largest) > _LARGEST:
            raise ModelError(
                f"tensor '{name}' holds numbers up to {max(smallest, largest):.2g}, which no model computes with",
                where=self._files.reference,
                hint="It is damaged, or was written as another type: download it again.",
            )

    def _adopt(self, name: str, weight: PlannedWeight, found: torch.Tensor | StoredWeight) -> bool:
        """Has the quantizer take over a weight of layers as the file stores it; tells whether it did."""
        made: list[FrozenWeight] = []
        for frozen in self._adopting(name, weight, found):
            if frozen is None:
                return False
            made.append(frozen)
        if not made:
            return False
        if weight.target in self._plan.linear:
            self._put_frozen(self._plan.linear[weight.target], made[0])
        else:
            stack = self._plan.experts[weight.target]
            pairs = zip(made, stack.layers(), strict=True)
            put_stack(self._model, stack, [FrozenLinear(frozen, layer) for frozen, layer in pairs])
        self._filled.add(weight.target)
        return True

    def _adopting(
        self, name: str, weight: PlannedWeight, found: torch.Tensor | StoredWeight
    ) -> Iterator[FrozenWeight | None]:
        """Yields what the quantizer makes of each layer's stored weight, or None where it does not take it over."""
        if not isinstance(self._quantizer, AdoptingQuantizer):
            return
        if not isinstance(found, StoredWeight):
            found = StoredWeight(_type_name(found), tuple(found.shape), {"weight": found}, {})
        for number, layer in enumerate(self._plan.adoptable(weight)):
            part = found if layer.kind == "linear" else found.matrix(number) if found.matrix else None
            yield self._adopted(name, layer, part) if part is not None else None

    def _adopted(self, name: str, layer: LayerInfo, stored: StoredWeight) -> FrozenWeight | None:
        assert isinstance(self._quantizer, AdoptingQuantizer)
        placed = {key: tensor.to(self._device) for key, tensor in stored.tensors.items()}
        try:
            frozen = self._quantizer.adopt(replace(stored, tensors=placed), layer)
        except ValueError as error:
            raise self._damaged(name, stored, str(error)) from None
        if frozen is None:
            return None
        if (frozen.out_features, frozen.in_features) != (layer.out_features, layer.in_features):
            raise self._damaged(name, stored, f"it makes a matrix {[frozen.out_features, frozen.in_features]}")
        self._check_numbers(name, frozen.dequantize(self._dtype), f"{layer.path}.weight")
        return frozen

    def _unusable(self, name: str, kind: str) -> ModelError:
        return ModelError(
            f"tensor '{name}' is stored as {kind}, which the recipe's quantizer does not take over "
            "and its source can't dequantize",
            where=self._files.reference,
            hint=f"Name a quantizer that keeps {kind}, or give the unquantized model.",
        )

    def _damaged(self, name: str, stored: StoredWeight, reason: str) -> ModelError:
        return ModelError(
            f"tensor '{name}' is damaged: stored as {stored.kind}, {reason}",
            where=self._files.reference,
            hint="Download it again.",
        )

    def _dense(self, name: str, found: torch.Tensor | StoredWeight) -> torch.Tensor:
        """Returns a tensor as it is, or the matrix that a stored weight stands for.

        Raises:
            ModelError: Neither the quantizer nor the source knows what the stored weight is.
        """
        if not isinstance(found, StoredWeight):
            return found
        if found.dequantize is None:
            raise self._unusable(name, found.kind)
        matrix = found.dequantize()
        if tuple(matrix.shape) != found.shape:
            raise self._damaged(name, found, f"it makes a matrix {list(matrix.shape)}")
        return matrix

    def _make(self, weight: PlannedWeight, tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in weight.make(tensors, self._model).items():
            names = self._plan.names[name]
            if not self._is_own(name):
                continue
            if self._filled.isdisjoint(names):
                self._put(name, tensor, names)
                self._filled.add(name)
            else:
                self._copies[name] = self._stored(name, tensor)  # compared at the end

    def _put(self, name: str, tensor: torch.Tensor, names: Iterable[str]) -> None:
        if name in self._plan.linear:
            self._put_linear(self._plan.linear[name], tensor)
            return
        if name in self._plan.experts:
            self._put_stack(self._plan.experts[name], tensor)
            return
        path, _, last = name.rpartition(".")
        module = self._model.get_submodule(path)
        if last in module._buffers:
            own = torch.float32 if self._in_float32(name) else module._buffers[last].dtype
            module._buffers[last] = tensor if name in self._towers else tensor.to(own)
            return
        new = nn.Parameter(self._stored(name, tensor), requires_grad=False)
        for shared in names:
            path, _, last = shared.rpartition(".")
            setattr(self._model.get_submodule(path), last, new)

    def _put_linear(self, layer: LayerInfo, tensor: torch.Tensor) -> None:
        frozen = self._frozen(layer, tensor, transposed=layer.transposed)
        self._put_frozen(layer, frozen)

    def _put_frozen(self, layer: LayerInfo, frozen: FrozenWeight) -> None:
        bias = self._model.get_submodule(layer.path).bias
        self._model.set_submodule(layer.path, FrozenLinear(frozen, layer, None if bias is None else bias.detach()))

    def _put_stack(self, stack: StackInfo, tensor: torch.Tensor) -> None:
        layers = [
            FrozenLinear(self._frozen(layer, matrix, transposed=stack.transposed), layer)
            for layer, matrix in zip(stack.layers(), tensor, strict=True)
        ]
        put_stack(self._model, stack, layers)

    def _put_taken(self, weights: Mapping[str, FrozenWeight]) -> None:
        """Puts weights that other processes have read in the places of layers, by their paths."""
        for path in weights:
            if f"{path}.weight" in self._plan.linear:
                self._put_frozen(self._plan.linear[f"{path}.weight"], weights[path])
        for stack in self._plan.stacks:
            layers = [layer for layer in stack.layers() if layer.path in weights]
            if layers:
                put_stack(self._model, stack, [FrozenLinear(weights[layer.path], layer) for layer in layers])

    def _reads(self, weight: PlannedWeight) -> bool:
        """Tells whether this process reads a weight: others give it those of theirs."""
        made = [name for name, maker in self._plan.tensors.makers.items() if maker is weight]
        return not made or any(map(self._is_own, made))

    def _is_own(self, name: str) -> bool:
        """Tells whether this process itself makes one of the model's tensors."""
        layer, stack = self._plan.linear.get(name), self._plan.experts.get(name)
        path = layer.path if layer else stack.layers()[0].path if stack else None
        return self._sharder is None or path is None or self._sharder.reads(path)

    def _frozen(self, layer: LayerInfo, tensor: torch.Tensor, *, transposed: bool) -> FrozenWeight:
        weight = tensor.to(self._device).to(self._dtype)
        return self._quantizer.quantize(weight.T.contiguous() if transposed else weight, layer)

    def _stored(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a tensor where and as the model computes with it; those of towers as the file has them."""
        if name in self._towers:
            return tensor.clone()
        dtype = torch.float32 if self._in_float32(name) else self._dtype
        return tensor.to(self._device).to(dtype, copy=True)


def _kept_in_float32(model: Any, head: Collection[str]) -> Callable[[str], bool]:
    """Returns what tells by a tensor's name whether it is computed with in float32, whatever the rest is.

    That is what the architecture says of itself, and a head.
    """
    patterns = [re.compile(pattern.replace("*", ".*")) for pattern in model._keep_in_fp32_modules_strict or ()]
    return lambda name: name in head or any(pattern.search(name) for pattern in patterns)


def _type_name(tensor: torch.Tensor) -> str:
    """Returns the name that `TensorInfo` has for a tensor's type."""
    return {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}.get(tensor.dtype, str(tensor.dtype))
