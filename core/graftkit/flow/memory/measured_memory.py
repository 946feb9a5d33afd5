"""Measures what a stage takes of memory while it goes on: what Linux and torch say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from graftkit.host.imported import imported

__all__ = ["StagePeak", "measured_memory", "memory_in_use", "own_memory"]

_EVERY = 0.01
"""Seconds between two looks at a process; one takes some 30 millionths of a second."""
_CHILDREN_EVERY = 10
"""Looks at the process between two at those that it started."""


@dataclass(slots=True)
class StagePeak:
    """The most that was seen.

    Attributes:
        host: Bytes of this process and of those that it started, what files are mapped to left out; None where the
            system does not tell.
        device: Bytes that torch held on a CUDA device; None where it computes on none.
    """

    host: int | None = None
    device: int | None = None


@contextmanager
def measured_memory() -> Iterator[StagePeak]:
    """Looks at the memory of this process, and of those that it starts, until the end; it is known then."""
    peak = StagePeak(own_memory())
    cuda = _cuda()
    if cuda:
        cuda.reset_peak_memory_stats()
    over = Event()
    watch = Thread(target=_watch, args=(peak, over), daemon=True, name="graftkit memory")
    if peak.host is not None:
        watch.start()
    try:
        yield peak
    finally:
        over.set()
        if peak.host is not None:
            watch.join()
        cuda = cuda or _cuda()
        if cuda:
            peak.device = cuda.max_memory_allocated()


def _watch(peak: StagePeak, over: Event) -> None:
    children, looks = 0, 0
    while True:
        if looks % _CHILDREN_EVERY == 0:
            children = sum(_anonymous(child) or 0 for child in _children())
        looks += 1
        peak.host = max(peak.host or 0, (own_memory() or 0) + children)
        if over.wait(_EVERY):
            return


def memory_in_use() -> int | None:
    """Returns the bytes that torch holds on a CUDA device, or else this process; None where the system does not tell.

    It takes some millionths of a second.
    """
    cuda = _cuda()
    return int(cuda.memory_allocated()) if cuda else own_memory()


def own_memory() -> int | None:
    """Returns the bytes that this process holds and that are no file's; None where the system does not tell."""
    return _anonymous("self")


def _anonymous(process: str) -> int | None:
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _children() -> list[str]:
    """Returns the processes that this one started, and that one's own; what a thread started is its main thread's."""
    found: list[str] = []
    asked = [str(os.getpid())]
    while asked:
        process = asked.pop()
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                started = children.read_text().split()
            except OSError:
                continue
            found += started
            asked += started
    return found


def _cuda() -> Any:
    """Returns `torch.cuda` where it is in use, without importing torch."""
    torch: Any = imported("torch")
    return torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
