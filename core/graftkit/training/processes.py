"""Several processes that train one model: what each computes of a step, and how they put it together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["ALONE", "Processes", "shares"]


class Processes(Protocol):
    """The processes that train a model together. All call its methods in the same order.

    Attributes:
        rank: This process's number, from 0. That of rank 0 alone writes files, evaluates and exports.
        count: How many there are.
        here: How many of them are on this machine.
    """

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def count(self) -> int:
        """How many processes there are."""

    @property
    def here(self) -> int:
        """How many processes are on this machine."""

    def sum_(self, tensor: torch.Tensor) -> None:
        """Puts the sum over all processes into a tensor, the same bits in each of them.

        Args:
            tensor: Of the same shape in every process.
        """

    def broadcast_(self, tensor: torch.Tensor) -> None:
        """Puts what the process of rank 0 has in a tensor into that of every other.

        Args:
            tensor: Of the same shape in every process.
        """

    def gather(self, value: Any) -> list[Any]:
        """Returns what every process has given, JSON, in the order of their ranks."""

    def announce(self, command: Mapping[str, Any]) -> None:
        """Tells the other processes what comes next, JSON; of the process of rank 0 alone."""

    def next_command(self) -> dict[str, Any]:
        """Waits for what the process of rank 0 announces next; of the others alone."""


class _Alone:
    """The only process."""

    rank = 0
    count = 1
    here = 1

    def sum_(self, tensor: torch.Tensor) -> None:
        return None

    def broadcast_(self, tensor: torch.Tensor) -> None:
        return None

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def announce(self, command: Mapping[str, Any]) -> None:
        return None

    def next_command(self) -> dict[str, Any]:
        raise RuntimeError("the only process waits for no other")


ALONE: Processes = _Alone()
"""One process, which does everything itself."""


def shares(costs: Sequence[int], count: int) -> list[list[int]]:
    """Returns which things each process does: the most expensive first, always to the one that has least to do.

    Args:
        costs: What each thing costs.
        count: How many processes there are.

    Returns:
        The numbers of each process's things, ascending. Where there are fewer things than processes, some have none.

    Example:
        >>> shares([5, 1, 4, 2], 2)
        [[0, 1], [2, 3]]
    """
    found: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        least = min(range(count), key=lambda rank: (sums[rank], rank))
        found[least].append(number)
        sums[least] += costs[number]
    return [sorted(numbers) for numbers in found]
