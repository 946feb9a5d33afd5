"""Frozen weights of which every process keeps a part, and all of a block only while it is used.

A block's stored tensors, of whatever types and shapes, lie one behind the other in one row of bytes, which is cut into
equal parts, one a process. Whoever uses a weight of the block has the row put together; it goes when a weight of
another block is used. So a forward pass puts each block together once, and a backward pass, which goes through them the
other way round, once more; a merge goes through the model block by block, too.

Bytes are cut, not rows of matrices: it takes no knowledge of how a quantizer stores a weight, makes parts equal to a
few bytes, and what arrives is the block as it is used, without a copy.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.model.linear import FrozenLinear

__all__ = ["BlockSharder", "ShardedWeight", "SharedBlocks", "WeightSharing"]

_ALIGNMENT = 64
"""Bytes at whose multiples tensors begin, as libraries want it of memory that they are given."""


class WeightSharing(Protocol):
    """The processes that keep one model's frozen weights among them.

    Attributes:
        on_rest: Called when a process is about to wait for the others: what was put together is let go of.
    """

    on_rest: Callable[[], None]

    @property
    def place(self) -> int:
        """This process's number among them, from 0."""

    @property
    def sharers(self) -> int:
        """How many they are."""

    def keep(self, part: torch.Tensor) -> int:
        """Keeps this process's part of something.

        Args:
            part: uint8 `[bytes]`; of the same size in every process.

        Returns:
            The number by which every process knows it: all keep the same things in the same order.
        """

    def drop(self, number: int) -> None:
        """Lets go of this process's part of something that no process needs any more."""

    def whole(self, number: int) -> torch.Tensor:
        """Returns the parts of all processes one behind the other, uint8 `[sharers * bytes]`."""


class ShardedWeight(FrozenWeight):
    """A frozen weight whose tensors are put together, with those of its block, when it is used.

    Its one parameter is empty, and says the device.

    Args:
        weight: The weight. Its parameters are on the meta device while its block is not used.
        block: What puts its block together.
        device: Where it computes.
    """

    def __init__(self, weight: FrozenWeight, block: _Block, device: torch.device) -> None:
        super().__init__(weight.out_features, weight.in_features)
        self.error_bound = weight.error_bound
        self.nothing = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self._held = weight, block  # in a tuple, since a module itself would become one of this one's

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Returns the stored matrix, `[out, in]`."""
        return self._whole().dequantize(dtype)

    def matmul(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x W^T`."""
        return self._whole().matmul(x)

    def matmul_transposed(self, grad: torch.Tensor) -> torch.Tensor:
        """Returns `grad W`."""
        return self._whole().matmul_transposed(grad)

    def instead(self, weight: FrozenWeight) -> ShardedWeight:
        """Has another weight kept in parts, too, as a block of its own; returns what stands for it."""
        shared = self._held[1].shared
        return ShardedWeight(weight, _Block([weight], shared), next(weight.parameters()).device)

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the stored tensors by name, whole."""
        return {name: tensor.clone() for name, tensor in self._whole().state().items()}

    def meta(self) -> dict[str, Any]:
        """Returns what the weight itself says."""
        return self._held[0].meta()

    @classmethod
    def from_state(cls, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Self:
        """It is made of a block alone."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """The bytes that the stored tensors take in all processes together."""
        return self._held[0].nbytes

    def _whole(self) -> FrozenWeight:
        weight, block = self._held
        block.use()
        return weight


class BlockSharder:
    """Has each block's frozen weights kept in parts, as soon as all of them are there.

    Args:
        model: The model; its weights may be on the meta device.
        layers: The dotted path of every layer whose weight is going to be frozen, single experts among them.
        shared: The blocks that there are.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], shared: SharedBlocks) -> None:
        lists = _outermost_lists(model)
        self._blocks: dict[str, list[str]] = {}
        for path in layers:
            self._blocks.setdefault(_block_of(path, lists), []).append(path)
        self._missing = {block: set(paths) for block, paths in self._blocks.items()}
        self._lists = lists
        self._shared = shared

    def shard(self, model: nn.Module, paths: Iterable[str]) -> None:
        """Has the blocks kept in parts that are complete with these layers.

        Args:
            model: The model.
            paths: Those whose frozen weights are there by now.
        """
        for path in paths:
            block = _block_of(path, self._lists)
            self._missing[block].discard(path)
            if not self._missing[block]:
                self._shard([_layer(model, path) for path in self._blocks[block]])

    def _shard(self, layers: list[FrozenLinear]) -> None:
        frozen = [layer.frozen for layer in layers]
        devices = [next(weight.parameters()).device for weight in frozen]
        block = _Block(frozen, self._shared)
        for layer, weight, device in zip(layers, frozen, devices, strict=True):
            layer.core = ShardedWeight(weight, block, device)


class SharedBlocks:
    """The blocks whose frozen weights processes keep among them, of which one at most is whole.

    Args:
        sharing: The processes.
    """

    def __init__(self, sharing: WeightSharing) -> None:
        self.sharing = sharing
        self._used: _Block | None = None
        sharing.on_rest = self.release

    def use(self, block: _Block) -> None:
        """Makes sure that a block is whole, and no other."""
        if self._used is block:
            return
        self.release()
        block.fill(self.sharing.whole(block.number))
        self._used = block

    def release(self) -> None:
        """Lets go of the block that is whole."""
        if self._used is not None:
            self._used.empty()
            self._used = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """A parameter of a frozen weight, and where its bytes begin in its block's row."""

    owner: nn.Module
    name: str
    start: int
    at_rest: nn.Parameter

    @property
    def end(self) -> int:
        return self.start + self.at_rest.nbytes


class _Block:
    """The frozen weights of a block.

    Args:
        weights: They. Their parameters are taken from them.
        shared: All blocks.

    Attributes:
        shared: All blocks.
        number: Of this process's part of the row.
    """

    def __init__(self, weights: Iterable[FrozenWeight], shared: SharedBlocks) -> None:
        self.shared = shared
        self._stored: list[_Stored] = []
        size = 0
        tensors: list[torch.Tensor] = []
        for weight in weights:
            for path, parameter in weight.named_parameters():
                owner, _, name = path.rpartition(".")
                at_rest = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
                self._stored.append(_Stored(weight.get_submodule(owner), name, size, at_rest))
                tensors.append(parameter.detach())
                size += math.ceil(parameter.nbytes / _ALIGNMENT) * _ALIGNMENT
        sharing = shared.sharing
        share = math.ceil(size / sharing.sharers / _ALIGNMENT) * _ALIGNMENT
        self.number = sharing.keep(self._part(tensors, sharing.place * share, share))
        weakref.finalize(self, sharing.drop, self.number)  # as where adapters put others in the place of all of them
        self.empty()

    def _part(self, tensors: list[torch.Tensor], start: int, size: int) -> torch.Tensor:
        """Returns a part of the row, uint8 `[size]`."""
        part = torch.zeros(size, dtype=torch.uint8, device=tensors[0].device)
        for stored, tensor in zip(self._stored, tensors, strict=True):
            first, last = max(start, stored.start), min(start + size, stored.end)
            if first < last:
                raw = tensor.contiguous().reshape(-1).view(torch.uint8)
                part[first - start : last - start] = raw[first - stored.start : last - stored.start]
        return part

    def use(self) -> None:
        """Makes sure that the weights have their tensors."""
        self.shared.use(self)

    def fill(self, row: torch.Tensor) -> None:
        """Gives the weights their tensors, which lie in the row."""
        for stored in self._stored:
            tensor = row[stored.start : stored.end].view(stored.at_rest.dtype).view(stored.at_rest.shape)
            stored.owner._parameters[stored.name] = nn.Parameter(tensor, requires_grad=False)

    def empty(self) -> None:
        """Takes the tensors from the weights: sizes and types stay."""
        for stored in self._stored:
            stored.owner._parameters[stored.name] = stored.at_rest


def _outermost_lists(model: nn.Module) -> list[str]:
    """Returns the paths of a model's outermost `nn.ModuleList`s, whose items are its blocks."""
    found: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return found


def _block_of(path: str, lists: Iterable[str]) -> str:
    """Returns the path of the block that a layer is in; of one that is in none, its own."""
    for outer in lists:
        if path.startswith(f"{outer}."):
            return f"{outer}.{path.removeprefix(f'{outer}.').partition('.')[0]}"
    return path


def _layer(model: nn.Module, path: str) -> FrozenLinear:
    owner, _, name = path.rpartition(".")
    layer = model.get_submodule(owner)._modules[name]  # an expert's stack gives no layer by its number
    assert isinstance(layer, FrozenLinear)
    return layer
