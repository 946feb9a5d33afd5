"""Processes that train together and keep the frozen weights among them.

A process computes its own passes, or works alone, as that of rank 0 does when it evaluates and exports; so what one
needs, and when, the others don't know. Each time that a process needs something whole, those that share it agree first:
each says what it needs, or that it needs nothing. Whoever waits for another, in whichever method of `Processes` that
is, hands over its parts meanwhile, until nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from graftkit.training.processes import Processes

__all__ = ["SharingGroup", "SharingProcesses"]

_NOTHING = -1
_HAND_OVER = {"hand over": True}


class SharingGroup(Processes, Protocol):
    """Processes that can also hand over parts of something; neighbours among them share everything between them."""

    def divide(self, sharers: int) -> None:
        """Divides the processes into groups of neighbours.

        Args:
            sharers: How many a group has.
        """

    def agree(self, number: int, *, soon: bool) -> list[int]:
        """Returns what every process of this one's group has given, in the order of their ranks.

        Args:
            number: What this one gives.
            soon: Whether the others are known to come to this before long.
        """

    def spread(self, place: int, tensor: torch.Tensor) -> None:
        """Puts what one process of this one's group has in a tensor into that of the others.

        Args:
            place: Which one, from 0.
            tensor: Of the same shape in each.
        """

    def assemble(self, part: torch.Tensor, whole: torch.Tensor | None, receivers: Sequence[int]) -> None:
        """Puts the parts of all processes of this one's group together.

        Args:
            part: This one's, of the same size in each.
            whole: Where they are put one behind the other; None where this one does not want them.
            receivers: Which of the group want them, from 0.
        """


class SharingProcesses:
    """Processes that keep frozen weights among them, as `graftkit.model.sharded.WeightSharing` says.

    Args:
        group: The processes.
        sharers: How many neighbours keep all of the weights among them; each such group keeps all of them.

    Attributes:
        on_rest: Called when this process is about to wait for the others.
        received: How many bytes of other processes' parts this one has received.
    """

    def __init__(self, group: SharingGroup, sharers: int) -> None:
        self.rank, self.count, self.here = group.rank, group.count, group.here
        self.sharers, self.place = sharers, group.rank % sharers
        self.on_rest: Callable[[], None] = lambda: None
        self.received = 0
        self._group = group
        self._parts: list[torch.Tensor] = []
        self._called = False
        self._training = False
        group.divide(sharers)

    @property
    def kept_bytes(self) -> int:
        """The bytes of the parts that this process keeps."""
        return sum(part.nbytes for part in self._parts)

    def keep(self, part: torch.Tensor) -> int:
        """Keeps this process's part of something; returns the number by which every process knows it."""
        self._parts.append(part)
        return len(self._parts) - 1

    def drop(self, number: int) -> None:
        """Lets go of this process's part of something that no process needs any more."""
        self._parts[number] = torch.empty(0, dtype=torch.uint8)

    def whole(self, number: int) -> torch.Tensor:
        """Returns the parts of all processes one behind the other, uint8 `[sharers * bytes]`."""
        if not self.rank and not self._called:  # the others may wait for a command
            self._called = True
            self._group.announce(_HAND_OVER)
        found = self._hand_over(self._group.agree(number, soon=self._training))
        assert found is not None
        return found

    def spread(self, place: int, row: torch.Tensor | None, device: torch.device) -> torch.Tensor:
        """Returns what one process gives to all that share, uint8 `[bytes]`.

        Args:
            place: Which one, by its place among those that share.
            row: What it gives; None in the others.
            device: Where the others put it.
        """
        size = self._group.agree(0 if row is None else len(row), soon=self._training)[place]
        found = torch.empty(size, dtype=torch.uint8, device=device) if row is None else row
        self._group.spread(place, found)
        return found

    def sum_(self, tensor: torch.Tensor) -> None:
        """Puts the sum over all processes into a tensor, the same bits in each of them."""
        self._rest(soon=self._training)
        self._group.sum_(tensor)

    def broadcast_(self, tensor: torch.Tensor) -> None:
        """Puts what the process of rank 0 has in a tensor into that of every other."""
        self._training = True
        self._rest(soon=True)
        self._group.broadcast_(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Returns what every process has given, JSON, in the order of their ranks."""
        self._rest(soon=self._training)
        return self._group.gather(value)

    def announce(self, command: Mapping[str, Any]) -> None:
        """Tells the other processes what comes next, JSON; of the process of rank 0 alone."""
        if self._called:
            self._rest(soon=self._training)
            self._called = False
        self._group.announce(command)

    def next_command(self) -> dict[str, Any]:
        """Waits for what the process of rank 0 announces next; of the others alone."""
        self.on_rest()
        while (command := self._group.next_command()) == _HAND_OVER:
            self._rest(soon=False)
        return command

    def _rest(self, *, soon: bool) -> None:
        """Hands over parts until nobody needs any."""
        self.on_rest()
        while set(wanted := self._group.agree(_NOTHING, soon=soon)) != {_NOTHING}:
            self._hand_over(wanted)

    def _hand_over(self, wanted: Sequence[int]) -> torch.Tensor | None:
        """Puts everything together that somebody wants, and returns what this process does."""
        found = None
        for number in sorted({number for number in wanted if number != _NOTHING}):
            part, mine = self._parts[number], wanted[self.place] == number
            whole = part.new_empty(self.sharers * len(part)) if mine else None
            receivers = [place for place, wish in enumerate(wanted) if wish == number]
            self._group.assemble(part, whole, receivers)
            if whole is not None:
                found = whole
                self.received += whole.nbytes - part.nbytes
        return found
