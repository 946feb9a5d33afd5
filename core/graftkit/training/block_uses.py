"""Which blocks of frozen weights a pass uses, and when: what processes that share them put together for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.model.linear import FrozenLinear
from graftkit.model.outer_layers import OuterLayer
from graftkit.model.sharded import layers_by_block, row_bytes

__all__ = ["BlockUses", "BlockWatch"]

_OPERATIONS = ("matmul", "matmul_transposed", "dequantize")


@dataclass(frozen=True, slots=True)
class BlockUses:
    """What of a model its processes exchange.

    Attributes:
        sizes: The bytes of each block's stored tensors, as they lie in a row. A frozen layer that is in no block is a
            block of its own.
        frozen: The bytes of all frozen layers.
        learn: The numbers of the blocks that a forward and backward pass puts together, in their order, where none is
            whole as it begins.
        forward: The same of a forward pass alone.
        trained: How many numbers each trained tensor has.
    """

    sizes: Sequence[int]
    frozen: int
    learn: Sequence[int]
    forward: Sequence[int]
    trained: Sequence[int]

    def put_together(self, passes: Iterable[str]) -> list[int]:
        """Returns the blocks that passes put together one after the other: the last one of a pass stays for the next.

        Args:
            passes: "learn", "forward" or "backward" each; the last is what "learn" does after "forward".

        Example:
            >>> uses = BlockUses((9, 9), 18, learn=(0, 1, 0), forward=(0, 1), trained=())
            >>> uses.put_together(["learn", "learn", "forward"])
            [0, 1, 0, 1, 0, 1]
        """
        found: list[int] = []
        orders = {"learn": self.learn, "forward": self.forward, "backward": self.learn[len(self.forward) - 1 :]}
        for kind in passes:
            for number in orders[kind]:
                if found[-1:] != [number]:
                    found.append(number)
        return found


class BlockWatch:
    """Notes which blocks of a model are used.

    Args:
        model: The model, its layers frozen.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [m for m in model.modules() if isinstance(m, FrozenLinear) and not isinstance(m, OuterLayer)]
        by_path = {layer.info.path: layer.frozen for layer in layers}
        blocks = [[by_path[path] for path in paths] for paths in layers_by_block(model, by_path).values()]
        self.sizes = [row_bytes(weights) for weights in blocks]
        self.frozen = sum(weight.nbytes for weight in by_path.values())
        self._used: list[int] = []
        for number, weights in enumerate(blocks):
            for weight in weights:
                self._watch(weight, number)

    @contextmanager
    def noting(self) -> Iterator[list[int]]:
        """Gives a list, to which the numbers of the blocks that are used meanwhile are added, in their order."""
        self._used = []
        yield self._used

    def _watch(self, weight: FrozenWeight, number: int) -> None:
        for name in _OPERATIONS:
            setattr(weight, name, self._noted(getattr(weight, name), number))

    def _noted(self, operation: Callable[..., Any], number: int) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            if self._used[-1:] != [number]:
                self._used.append(number)
            return operation(*arguments, **named)

        return noted
