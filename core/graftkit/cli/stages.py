"""Shows how far a command's own long work has come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from graftkit.flow.events import OnEvent, Progress, StageFinished, StageStarted

__all__ = ["stage", "watched"]


@contextmanager
def stage(name: str, on_event: OnEvent) -> Iterator[None]:
    """Tells that a stage begins and, unless it fails, that it is over."""
    start = time.perf_counter()
    on_event(StageStarted(name))
    yield
    on_event(StageFinished(name, time.perf_counter() - start, {}))


def watched(texts: Iterable[str], total: int, name: str, on_event: OnEvent) -> Iterator[str]:
    """Passes texts on, and tells how many kilobytes of a total in bytes went by."""
    done = 0
    for text in texts:
        yield text
        done += len(text.encode())
        on_event(Progress(name, "KB", done // 1000, total // 1000))
