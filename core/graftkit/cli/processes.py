"""Starts several processes that train together, or finds that this is one of them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from graftkit.errors import Cancelled, GraftkitError, ProcessError
from graftkit.flow.state.cancel import CancelToken

if TYPE_CHECKING:
    from graftkit.training.process_group import ProcessGroup

__all__ = ["MEETING_SECONDS", "Place", "joined", "place_of", "start"]

MEETING_SECONDS = 300.0
"""How long a process waits at its start for all others."""

_SILENT_SECONDS = 2.0
"""How long it does so without a word."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes that torchrun has started this one is.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        here: How many of them are on this machine.
        store_apart: Whether torchrun's process keeps the store that they share, rather than that of rank 0.
    """

    rank: int
    count: int
    here: int
    store_apart: bool = False

    @property
    def here_alone(self) -> bool:
        """Whether all of them are on this machine."""
        return self.here == self.count


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Returns which of several processes this is, by what torchrun has put into the environment; None for one alone."""
    rank, count = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
    if not (rank.isdigit() and count.isdigit()) or int(count) < 2 or "MASTER_ADDR" not in environment:
        return None
    here = environment.get("LOCAL_WORLD_SIZE", "")
    apart = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(int(rank), int(count), int(here) if here.isdigit() else 1, apart)


@contextmanager
def joined(place: Place, cancel: CancelToken) -> Iterator[ProcessGroup]:
    """Gives the processes that train together; tells the others where this one fails.

    What another process fails with is raised in one process alone, so that it is told once: in that of rank 0, or
    where that is the one, in that of rank 1. The others end without a word.

    Raises:
        ProcessError: The others did not come.
    """
    from graftkit.training.process_group import Ended, ProcessGroup

    store = _store_of_all(place, cancel)
    group = ProcessGroup(store, place.rank, place.count, cancel.poll, here=place.here, store_apart=place.store_apart)
    cancel.before_stop = group.refuse_gone
    try:
        yield group
    except Ended:
        return
    except ProcessError as error:
        group.fail(error.message)
        if place.rank not in (0, 1) or (place.rank and not error.message.startswith("the process of rank 0 ")):
            sys.exit(error.exit_code)
        raise
    except BaseException as error:
        group.fail(_reason(error))
        if place.rank:
            sys.exit(error.exit_code if isinstance(error, GraftkitError) else 1)
        raise
    finally:
        if not place.rank:
            group.end()
        group.close()


def _store_of_all(place: Place, cancel: CancelToken) -> Any:
    """Waits for all processes, and returns torch's store that they share; says for whom it waits.

    Raises:
        ProcessError: They did not all come.
        Cancelled: This process was stopped meanwhile.
    """
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    found: list[Any] = []

    def meet() -> None:  # in a thread of its own: it waits without looking at signals
        limit = timedelta(seconds=MEETING_SECONDS + 30)
        try:
            found.append(next(rendezvous("env://", place.rank, place.count, timeout=limit))[0])
        except Exception as error:
            found.append(error)

    meeting, began, told = threading.Thread(target=meet, daemon=True), time.monotonic(), False
    meeting.start()
    variables = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    said = ", ".join(f"{name}={value}" for name, value in variables.items() if value)
    alone = "To run alone, without others: unset RANK WORLD_SIZE MASTER_ADDR"
    while not found:
        meeting.join(0.05)
        cancel.poll()
        waited = time.monotonic() - began
        if waited > _SILENT_SECONDS and not told and not found:
            told = True
            whom = "another process" if place.count == 2 else f"{place.count - 1:,} other processes"
            limit = f"{MEETING_SECONDS / 60:.0f} minutes at most"
            print(f"note: waiting for {whom}, for {limit}, as {said} say. {alone}", file=sys.stderr, flush=True)
        if waited > MEETING_SECONDS and not found:
            raise ProcessError(
                f"the other processes did not come within {MEETING_SECONDS:.0f} s: {said} say that there are "
                f"{place.count:,}",
                hint=f"Start all of them at about the same time. {alone}.",
            )
    if isinstance(found[0], Exception):
        reason = (str(found[0]) or type(found[0]).__name__).splitlines()[0]
        raise ProcessError(f"this process could not meet the others ({said}): {reason}", hint=f"{alone}.")
    return found[0]


def _reason(error: BaseException) -> str:
    if isinstance(error, GraftkitError):
        return f"{error.where}: {error.message}" if error.where else error.message
    return f"{type(error).__name__}: {error}"


def start(count: int, arguments: Sequence[str]) -> int:
    """Starts processes on this machine by torchrun, and waits for them.

    Args:
        count: How many.
        arguments: The command's, as each of them gets them.

    Returns:
        The exit code: that of the first process that fails, or 130 where this one was stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        run_id=f"graftkit-{os.getpid()}",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    for name in logging.root.manager.loggerDict:  # the processes tell all themselves
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "graftkit", *arguments)
    except ChildFailedError as error:
        return max(1, int(error.get_first_failure()[1].exitcode))  # of a killed one it is below zero
    except SignalException:
        return Cancelled.exit_code
    return 0
