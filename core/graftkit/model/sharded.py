"""Frozen weights of which every process keeps a part, and all of a block only while it is used.

A block's stored tensors, of whatever types and shapes, lie one behind the other in one row of bytes, which is cut into
equal parts, one a process. Whoever uses a weight of the block has the row put together; it goes when a weight of
another block is used. So a forward pass puts each block together once, and a backward pass, which goes through them the
other way round, once more; a merge goes through the model block by block, too.

Bytes are cut, not rows of matrices: it takes no knowledge of how a quantizer stores a weight, makes parts equal to a
few bytes, and what arrives is the block as it is used, without a copy.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import nn

from graftkit.errors import ModelError
from graftkit.interfaces.block_memory import repeated_blocks
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.provider import import_target
from graftkit.model.linear import FrozenLinear

__all__ = [
    "BlockSharder",
    "ShardedWeight",
    "SharedBlocks",
    "WeightSharing",
    "layers_by_block",
    "part_bytes",
    "row_bytes",
]

_ALIGNMENT = 64
"""Bytes at whose multiples tensors begin, as libraries want it of memory that they are given."""


def part_bytes(size: int, sharers: int) -> int:
    """Returns the bytes of the equal parts in which processes keep a block.

    Args:
        size: The bytes of the row of its stored tensors.
        sharers: How many processes keep it among them.

    Example:
        >>> part_bytes(1000, 3)
        384
    """
    return math.ceil(size / sharers / _ALIGNMENT) * _ALIGNMENT


def row_bytes(weights: Iterable[FrozenWeight]) -> int:
    """Returns the bytes of the row in which a block's stored tensors lie."""
    return _layout(parameter for weight in weights for parameter in weight.parameters())[1]


def layers_by_block(model: nn.Module, layers: Iterable[str]) -> dict[str, list[str]]:
    """Returns the dotted paths of a model's frozen layers by the block that they are in; what is in none is one itself.

    Args:
        model: The model.
        layers: The paths, single experts among them.
    """
    blocks, found = repeated_blocks(model)[0], dict[str, list[str]]()
    for path in layers:
        found.setdefault(_block_of(path, blocks), []).append(path)
    return found


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

    def spread(self, place: int, row: torch.Tensor | None, device: torch.device) -> torch.Tensor:
        """Returns what one process gives to all; all call it in the same order.

        Args:
            place: Which one gives.
            row: What it gives, uint8 `[bytes]`; None in the others.
            device: Where it is to be.
        """


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
        self.error_bound, self.rounds_products = weight.error_bound, weight.rounds_products
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
        return weight.train(self.training)


class BlockSharder:
    """Has each block read and quantized by one process, and kept in parts by all.

    A process has the blocks that it reads whole until all are read, which is as much as its parts of all blocks are.
    Then the blocks are given out one after the other.

    Args:
        model: The model; its weights may be on the meta device.
        layers: The dotted path of every layer whose weight is going to be frozen, single experts among them.
        shared: The blocks that there are.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], shared: SharedBlocks) -> None:
        self._blocks = layers_by_block(model, layers)
        sharers = shared.sharing.sharers
        self._readers = {path: number % sharers for number, paths in enumerate(self._blocks.values()) for path in paths}
        self._shared = shared

    def reads(self, path: str) -> bool:
        """Tells whether this process reads a layer's weight."""
        return self._readers[path] == self._shared.sharing.place

    def give_out(
        self, model: nn.Module, put: Callable[[Mapping[str, FrozenWeight]], None], device: torch.device
    ) -> None:
        """Gives every process each block's weights, of which it keeps a part.

        Args:
            model: The model, in which those weights are that this process has read.
            put: Puts others into it, by the paths of their layers.
            device: Where weights are.

        Raises:
            ModelError: Other processes can't make a weight of what this one has stored.
        """
        for paths in self._blocks.values():
            reader = self._readers[paths[0]]
            if reader == self._shared.sharing.place:
                self._give([_layer(model, path).frozen for path in paths], paths, reader, device)
            else:
                put(dict(zip(paths, self._take(reader, device), strict=True)))
            self._shard([_layer(model, path) for path in paths])

    def _give(self, weights: list[FrozenWeight], paths: list[str], reader: int, device: torch.device) -> None:
        states = [weight.state() for weight in weights]
        said = [_described(*each) for each in zip(weights, states, paths, strict=True)]
        self._shared.sharing.spread(reader, _row_of_json(said), torch.device("cpu"))
        tensors = [tensor for state in states for tensor in state.values()]
        starts, size = _layout(tensors)
        self._shared.sharing.spread(reader, _packed(tensors, starts, 0, size), device)

    def _take(self, reader: int, device: torch.device) -> list[FrozenWeight]:
        said = json.loads(self._shared.sharing.spread(reader, None, torch.device("cpu")).numpy().tobytes())
        kinds = [(getattr(torch, dtype), tuple(shape)) for _, _, own in said for _, dtype, shape in own]
        empty = [torch.empty(shape, dtype=dtype, device="meta") for dtype, shape in kinds]
        starts, _ = _layout(empty)
        row = self._shared.sharing.spread(reader, None, device)
        tensors = iter([_cut(row, start, like) for start, like in zip(starts, empty, strict=True)])
        return [
            import_target(kind).from_state({name: next(tensors) for name, _, _ in own}, meta)
            for kind, meta, own in said
        ]

    def _shard(self, layers: list[FrozenLinear]) -> None:
        frozen = [layer.frozen for layer in layers]
        devices = [next(weight.parameters()).device for weight in frozen]
        block = _Block(frozen, self._shared)
        for layer, weight, device in zip(layers, frozen, devices, strict=True):
            layer.core = ShardedWeight(weight, block, device)


def _described(weight: FrozenWeight, state: Mapping[str, torch.Tensor], path: str) -> list[Any]:
    """Returns what another process makes a weight of besides its tensors' contents, as JSON.

    Raises:
        ModelError: It could not find the weight's class.
    """
    kind = type(weight)
    target = f"{kind.__module__}:{kind.__qualname__}"
    try:
        found = import_target(target)
    except (ImportError, AttributeError):
        found = None
    if found is not kind:
        raise ModelError(
            f"its weight, a {kind.__qualname__}, can't be shared by processes: there is no {target} to import",
            where=path,
            hint="Say training.parallel: data, or have the quantizer define the class at the top of its module.",
        )
    own = [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in state.items()]
    return [target, weight.meta(), own]


def _row_of_json(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


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
        named = [(weight, *each) for weight in weights for each in weight.named_parameters()]
        tensors = [parameter.detach() for _, _, parameter in named]
        starts, size = _layout(tensors)
        self._stored = [
            _Stored(
                weight.get_submodule(path.rpartition(".")[0]),
                path.rpartition(".")[2],
                start,
                nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False),
            )
            for (weight, path, parameter), start in zip(named, starts, strict=True)
        ]
        sharing = shared.sharing
        share = part_bytes(size, sharing.sharers)
        self.number = sharing.keep(_packed(tensors, starts, sharing.place * share, share))
        weakref.finalize(self, sharing.drop, self.number)  # as where adapters put others in the place of all of them
        self.empty()

    def use(self) -> None:
        """Makes sure that the weights have their tensors."""
        self.shared.use(self)

    def fill(self, row: torch.Tensor) -> None:
        """Gives the weights their tensors, which lie in the row."""
        for stored in self._stored:
            tensor = _cut(row, stored.start, stored.at_rest)
            stored.owner._parameters[stored.name] = nn.Parameter(tensor, requires_grad=False)

    def empty(self) -> None:
        """Takes the tensors from the weights: sizes and types stay."""
        for stored in self._stored:
            stored.owner._parameters[stored.name] = stored.at_rest


@dataclass(frozen=True, slots=True)
class _Stored:
    """A parameter of a frozen weight: whose it is, where its bytes begin in its block's row, and what it is at rest."""

    owner: nn.Module
    name: str
    start: int
    at_rest: nn.Parameter


def _layout(tensors: Iterable[torch.Tensor]) -> tuple[list[int], int]:
    """Returns where each tensor's bytes begin in a row, and how many bytes that has."""
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT
    return starts, size


def _packed(tensors: Sequence[torch.Tensor], starts: Sequence[int], first: int, size: int) -> torch.Tensor:
    """Returns so many bytes of a row, from `first` on, uint8 `[size]`."""
    part = torch.zeros(size, dtype=torch.uint8, device=tensors[0].device)
    for start, tensor in zip(starts, tensors, strict=True):
        begin, end = max(first, start), min(first + size, start + tensor.nbytes)
        if begin < end:
            raw = tensor.contiguous().reshape(-1).view(torch.uint8)
            part[begin - first : end - first] = raw[begin - start : end - start]
    return part


def _cut(row: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    """Returns the tensor that lies in a row from `start` on, of the type and shape of another."""
    return row[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _block_of(path: str, blocks: Iterable[str]) -> str:
    """Returns the path of the block that a layer is in; of one that is in none, its own."""
    return next((block for block in blocks if path.startswith(f"{block}.")), path)


def _layer(model: nn.Module, path: str) -> FrozenLinear:
    owner, _, name = path.rpartition(".")
    layer = model.get_submodule(owner)._modules[name]  # an expert's stack gives no layer by its number
    assert isinstance(layer, FrozenLinear)
    return layer
