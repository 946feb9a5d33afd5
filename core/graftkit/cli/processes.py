"""Starts several processes that train together, or finds that this is one of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftkit.errors import Cancelled, GraftkitError, ProcessError
from graftkit.flow.cancel import CancelToken

if TYPE_CHECKING:
    from graftkit.training.process_group import ProcessGroup

__all__ = ["Place", "joined", "place_of", "start"]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes that torchrun has started this one is.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        here: How many of them are on this machine.
    """

    rank: int
    count: int
    here: int

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
    return Place(int(rank), int(count), int(here) if here.isdigit() else 1)


@contextmanager
def joined(place: Place, cancel: CancelToken) -> Iterator[ProcessGroup]:
    """Gives the processes that train together; tells the others where this one fails.

    What another process fails with is raised in one process alone, so that it is told once: in that of rank 0, or
    where that is the one, in that of rank 1. The others end without a word.
    """
    from torch.distributed import rendezvous  # type: ignore[attr-defined]

    from graftkit.training.process_group import Ended, ProcessGroup

    store, _, _ = next(rendezvous("env://", place.rank, place.count))
    group = ProcessGroup(store, place.rank, place.count, cancel.poll, here=place.here)
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
    try:
        elastic_launch(config, sys.executable)("-m", "graftkit", *arguments)
    except ChildFailedError as error:
        return max(1, int(error.get_first_failure()[1].exitcode))  # of a killed one it is below zero
    except SignalException:
        return Cancelled.exit_code
    return 0
