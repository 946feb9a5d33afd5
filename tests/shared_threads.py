"""Threads in the place of processes that keep frozen weights among them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from graftkit.training.sharing import SharingProcesses

__all__ = ["in_threads"]


class _Meeting:
    """Where all threads give something and get what all have given."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=30)
        self._given: list[Any] = [None] * count

    def meet(self, place: int, value: Any) -> list[Any]:
        self._given[place] = value
        self._barrier.wait()
        found = list(self._given)
        self._barrier.wait()
        return found

    def abort(self) -> None:
        self._barrier.abort()


class _ThreadGroup:
    """One of the threads, as `graftkit.training.sharing.SharingGroup`."""

    def __init__(self, rank: int, meetings: Mapping[str, _Meeting], commands: Sequence[queue.Queue[Any]]) -> None:
        self.rank, self.count, self.here = rank, len(commands), len(commands)
        self._meetings, self._commands = meetings, commands
        self.received: list[int] = []

    def sum_(self, tensor: torch.Tensor) -> None:
        tensor.copy_(sum(self._meetings["all"].meet(self.rank, tensor.clone())))

    def broadcast_(self, tensor: torch.Tensor) -> None:
        tensor.copy_(self._meetings["all"].meet(self.rank, tensor.clone())[0])

    def gather(self, value: Any) -> list[Any]:
        return self._meetings["all"].meet(self.rank, value)

    def announce(self, command: Mapping[str, Any]) -> None:
        for commands in self._commands[1:]:
            commands.put(dict(command))

    def next_command(self) -> dict[str, Any]:
        found: dict[str, Any] = self._commands[self.rank].get(timeout=30)
        return found

    def divide(self, sharers: int) -> None:
        assert sharers == self.count

    def agree(self, number: int, *, soon: bool) -> list[int]:
        return self._meetings["sharers"].meet(self.rank, number)

    def spread(self, place: int, tensor: torch.Tensor) -> None:
        tensor.copy_(self._meetings["sharers"].meet(self.rank, tensor.clone())[place])

    def assemble(self, part: torch.Tensor, whole: torch.Tensor | None, receivers: Sequence[int]) -> None:
        parts = self._meetings["sharers"].meet(self.rank, part)
        assert (whole is not None) == (self.rank in receivers)
        if whole is not None:
            whole.copy_(torch.cat(parts))


def in_threads(count: int, work: Callable[[SharingProcesses], Any]) -> list[Any]:
    """Calls a function in so many threads, which share frozen weights; returns what each call returns.

    Raises:
        Exception: What the first of them raises.
    """
    meetings = {"all": _Meeting(count), "sharers": _Meeting(count)}
    commands: list[queue.Queue[Any]] = [queue.Queue() for _ in range(count)]
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def call(rank: int) -> None:
        try:
            results[rank] = work(SharingProcesses(_ThreadGroup(rank, meetings, commands), count))
        except BaseException as error:
            errors.append(error)
            for meeting in meetings.values():
                meeting.abort()

    threads = [threading.Thread(target=call, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results
