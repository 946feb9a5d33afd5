"""Processes on one machine or several that train together, by torch.distributed.

torchrun starts them, and keeps the store through which they find one another, hand over small values and tell of
failures. Sums over tensors go by gloo, or NCCL where they lie on CUDA devices.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, cast

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from graftkit.errors import ProcessError
from graftkit.option_names import option

__all__ = ["Ended", "ProcessGroup"]

GONE_SECONDS = 20.0
"""How long a process may say nothing before it counts as gone: its own thread says something each second."""

HUNG_SECONDS = 600.0
"""How long the others wait for a process that lives, where it takes part in what all do together."""

_WAITING_SECONDS = 2.0
"""How long a process waits before it lets the others know that it does: whoever hangs is the one that has not."""

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_BROKEN_SECONDS = 10.0
"""How long is waited for the reason where a connection has broken."""

_KEPT_COMMANDS = 8
"""How many of the last commands the store keeps: some follow one another before all processes have read them."""

_gather_row: Callable[..., Any] = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
"""Under the name that this version of torch does not warn of."""

_JOIN = timedelta(minutes=30)
_NEVER = timedelta(days=365)
"""When torch itself stops waiting for what may take any time, such as what rank 0 does alone."""


class Ended(Exception):
    """The process of rank 0 has ended, well or not, and has said so itself: there is nothing more to do or to tell."""


class ProcessGroup:
    """The processes that torchrun has started, as `graftkit.training.processes.Processes`.

    Must be closed by the one that made it.

    Args:
        store: torch's store that all processes share.
        rank: This process's number.
        count: How many there are.
        poll: Called while waiting for the others; raises to stop.
        here: How many of them are on this machine.
        store_apart: Whether the store lies in a process of its own, as torchrun's does, rather than in that of rank 0.

    Raises:
        ProcessError: From every method that waits: another process has failed, is gone, or hangs; which, and why.
        Ended: From those of processes of other ranks: rank 0's has ended.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        count: int,
        poll: Callable[[], None] = lambda: None,
        *,
        here: int = 1,
        store_apart: bool = False,
    ) -> None:
        self.rank, self.count, self.here = rank, count, here
        self._store_apart = store_apart
        self._store = cast(Any, PrefixStore("graftkit", store))  # whose stubs lack clone()
        self._poll = poll
        self._gathered, self._commands, self._joined = 0, 0, False
        self._neighbours: range = range(count)
        self._words: Any = None
        self._tensors: Any = None
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._looked = 0.0
        self._told_waiting = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=_beat, args=(self._store.clone(), rank, self._closing), daemon=True)
        self._thread.start()

    def sum_(self, tensor: torch.Tensor) -> None:
        """Puts the sum over all processes into a tensor, the same bits in each of them."""
        self._join()
        self._together(lambda: distributed.all_reduce(tensor, async_op=True))

    def broadcast_(self, tensor: torch.Tensor) -> None:
        """Puts what the process of rank 0 has in a tensor into that of every other."""
        self._join()
        self._together(lambda: distributed.broadcast(tensor, 0, async_op=True))

    def gather(self, value: Any) -> list[Any]:
        """Returns what every process has given, JSON, in the order of their ranks."""
        number = self._gathered
        self._gathered += 1
        found = []
        with self._connected():
            self._store.set(f"gather/{number}/{self.rank}", json.dumps(value))
            for rank in range(self.count):
                self._wait_for(f"gather/{number}/{rank}", rank)
                found.append(json.loads(self._store.get(f"gather/{number}/{rank}")))
            if number:  # whoever gives its value to this one has read those of the last
                self._store.delete_key(f"gather/{number - 1}/{self.rank}")
        return found

    def announce(self, command: Mapping[str, Any]) -> None:
        """Tells the other processes what comes next, JSON."""
        with self._connected():
            self._store.set(f"command/{self._commands}", json.dumps(dict(command)))
            if self._commands >= _KEPT_COMMANDS:  # everybody has taken part in something since
                self._store.delete_key(f"command/{self._commands - _KEPT_COMMANDS}")
        self._commands += 1

    def next_command(self) -> dict[str, Any]:
        """Waits for what the process of rank 0 announces next, however long it takes, as long as it lives."""
        name = f"command/{self._commands}"
        self._commands += 1
        with self._connected():
            self._wait_for(name, None)
            found: dict[str, Any] = json.loads(self._store.get(name))
        return found

    def divide(self, sharers: int) -> None:
        """Divides the processes into groups of neighbours, which can `agree` and `assemble` then."""
        self._join()
        for first in range(0, self.count, sharers):
            ranks = range(first, first + sharers)
            with self._connected():
                words = distributed.new_group(list(ranks), backend="gloo", timeout=_NEVER)
                tensors = distributed.new_group(list(ranks))
            if self.rank in ranks:
                self._neighbours, self._words, self._tensors = ranks, words, tensors

    def agree(self, number: int, *, soon: bool) -> list[int]:
        """Returns what every process of this one's group has given, in the order of their ranks."""
        found = torch.empty(len(self._neighbours), dtype=torch.int64)
        given = torch.tensor([number])
        self._together(lambda: _gather_row(found, given, group=self._words, async_op=True), soon=soon)
        return [int(each) for each in found]

    def spread(self, place: int, tensor: torch.Tensor) -> None:
        """Puts what one process of this one's group has in a tensor into that of the others."""
        rank, group = self._neighbours[place], self._tensors
        self._together(lambda: distributed.broadcast(tensor, rank, group=group, async_op=True))

    def assemble(self, part: torch.Tensor, whole: torch.Tensor | None, receivers: Sequence[int]) -> None:
        """Puts the parts of all processes of this one's group together, where it is wanted."""
        group = self._tensors
        if whole is not None and len(receivers) == len(self._neighbours):
            row = whole
            self._together(lambda: _gather_row(row, part, group=group, async_op=True))
            return
        for receiver in receivers:
            rank = self._neighbours[receiver]
            parts = list(whole.view(len(self._neighbours), -1)) if whole is not None and rank == self.rank else None
            self._together(lambda: distributed.gather(part, parts, rank, group=group, async_op=True))  # noqa: B023

    def fail(self, reason: str) -> None:
        """Tells the other processes that this one ends, and why; the first reason stays."""
        with suppress(RuntimeError):
            self._store.compare_set("failure", "", json.dumps({"rank": self.rank, "reason": reason}))

    def refuse_gone(self, reason: str) -> None:
        """Makes sure that this process was asked to stop for no other's sake, as torchrun asks all when one has died.

        Returns as soon as all others have said that they were asked, too, or that of rank 0 has ended.

        Args:
            reason: Why it was asked, which the others are told where they weren't.

        Raises:
            ProcessError: One is gone, or has failed.
        """
        end = time.monotonic() + _BROKEN_SECONDS
        others = set(range(self.count)) - {self.rank}
        with suppress(RuntimeError):
            self._store.set(f"asked/{self.rank}", "1")
            if self.rank:
                self.fail(reason)
            while time.monotonic() < end and not self._store.check(["ended"]):
                asked = {rank for rank in others if self._store.check([f"asked/{rank}"])}
                if asked == others:
                    return
                if not self.rank and not asked:
                    self._refuse_failure()
                for rank in self._silent(time.monotonic(), 4 * _BEAT_SECONDS):
                    if rank not in asked:
                        raise _gone(rank, self.count, "it ended without a word")
                time.sleep(0.1)

    def end(self) -> None:
        """Tells the others that this process is done, well or not; of the process of rank 0 alone."""
        with suppress(RuntimeError):
            self._store.set("ended", "1")

    def close(self) -> None:
        """Ends what this object has started."""
        self._closing.set()
        self._thread.join(timeout=5 * _BEAT_SECONDS)
        if self._joined:
            with suppress(RuntimeError):
                distributed.destroy_process_group()

    def _join(self) -> None:
        """Connects the processes with one another, at the first sum: a store alone has no tensors."""
        if self._joined:
            return
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        self.gather("here")  # so that nobody is waited for without being looked after
        with self._connected():
            distributed.init_process_group(
                backend,
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.count,
                timeout=_JOIN,
            )
        self._joined = True

    def _together(self, start: Callable[[], Any], *, soon: bool = True) -> None:
        """Does what all processes do at the same time.

        Args:
            start: Starts it.
            soon: Whether the others are known to come to it before long.
        """
        began = time.monotonic()
        with self._connected():
            work = start()
            while not work.is_completed():
                self._look(waiting_since=began if soon else None)
                time.sleep(_pause(time.monotonic() - began))
            work.wait()
            if self._told_waiting:
                self._told_waiting = False
                self._store.delete_key(f"waits/{self.rank}")

    def _wait_for(self, key: str, rank: int | None) -> None:
        """Waits until a key is there, while connected.

        Args:
            key: Its name.
            rank: Whose it is, which is to be there soon; None where that may take any time.
        """
        began = time.monotonic()
        while not self._store.check([key]):
            self._look(waiting_since=None if rank is None else began, rank=rank)
            time.sleep(_pause(time.monotonic() - began))

    def _look(self, *, waiting_since: float | None, rank: int | None = None) -> None:
        """Looks whether the others are still there, every half a second.

        Args:
            waiting_since: Since when this process waits for what is to come soon.
            rank: For whose part.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._poll()
        self._refuse_failure()
        for other in self._silent(now, GONE_SECONDS):
            raise _gone(other, self.count, f"it has said nothing for {GONE_SECONDS:.0f} s")
        waited = 0.0 if waiting_since is None else now - waiting_since
        if waited > _WAITING_SECONDS and rank is None and not self._told_waiting:
            self._told_waiting = True
            self._store.set(f"waits/{self.rank}", "1")
        if waited > HUNG_SECONDS:
            who = self._not_waiting() if rank is None else _name(rank, self.count)
            raise ProcessError(
                f"{who} hangs: the others have waited {HUNG_SECONDS / 60:.0f} minutes for its part",
                hint=f"Go on with {option('resume')}; its machine, or its device, may be at fault.",
            )

    def _not_waiting(self) -> str:
        """Returns the names of the processes that wait for no other."""
        hanging = [other for other in range(self.count) if not self._store.check([f"waits/{other}"])]
        return " and ".join(_name(other, self.count) for other in hanging) or "a process"

    def _refuse_failure(self) -> None:
        if self._store.check(["failure"]):
            said = json.loads(self._store.get("failure"))
            if said["rank"] == 0:
                raise Ended
            raise ProcessError(
                f"{_name(said['rank'], self.count)}: {said['reason']}",
                hint=f"What was trained until then is kept: mend that and go on with {option('resume')}.",
            )
        if self.rank and self._store.check(["ended"]):
            raise Ended

    def _silent(self, now: float, seconds: float) -> list[int]:
        """Returns the processes that have said nothing for so long."""
        found = []
        for other in range(self.count):
            key = f"beat/{other}"
            beat = self._store.get(key) if self._store.check([key]) else b""
            if self._beats.get(other, (None,))[0] != beat:
                self._beats[other] = beat, now
            elif other != self.rank and now - self._beats[other][1] > seconds:
                found.append(other)
        return found

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Says of a connection that breaks meanwhile whose it was; a ProcessError and Ended are no RuntimeErrors."""
        try:
            yield
        except RuntimeError as error:
            raise self._broken(error) from error

    def _broken(self, error: RuntimeError) -> ProcessError:
        """Returns what says whose connection has broken, and why, as far as that becomes known.

        Raises:
            Ended: That of rank 0's process, which has said so.
        """
        end = time.monotonic() + _BROKEN_SECONDS
        while time.monotonic() < end:
            try:
                self._refuse_failure()
                silent = self._silent(time.monotonic(), 4 * _BEAT_SECONDS)
            except ProcessError as known:
                return known
            except RuntimeError:
                return self._without_store()
            if silent:
                return _gone(silent[0], self.count, "it ended without a word")
            time.sleep(_LOOK_SECONDS)
        return ProcessError(f"the connection to another process broke: {str(error).splitlines()[0]}")

    def _without_store(self) -> ProcessError:
        """Returns what says whose process is gone, where the store can't be reached any more."""
        if self._store_apart:
            return ProcessError(
                "what started this process, and has the processes know of one another, is gone",
                hint=f"What was trained until the last checkpoint is kept: go on with {option('resume')}.",
            )
        return _gone(0, self.count, "the store of all processes can't be reached any more")


def _pause(waited: float) -> float:
    """Returns the seconds until one looks again, by how long one has waited: little of a short wait is lost."""
    return min(0.01, 0.0002 + waited / 50)


def _gone(rank: int, count: int, why: str) -> ProcessError:
    return ProcessError(
        f"{_name(rank, count)} is gone: {why}",
        hint=f"It was killed, or its machine has failed; often memory has run out. Go on with {option('resume')}.",
    )


def _name(rank: int, count: int) -> str:
    return f"the process of rank {rank} (of {count})"


def _beat(store: Any, rank: int, closing: threading.Event) -> None:
    """Says each second that the process lives, until it is closed, or nobody listens any more."""
    number = 0
    with suppress(RuntimeError):
        while not closing.wait(_BEAT_SECONDS if number else 0):
            store.set(f"beat/{rank}", f"{os.getpid()} {number}")
            number += 1
