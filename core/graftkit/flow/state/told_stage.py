"""A stage of work outside of a run: that it begins, how far it is, that it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graftkit.flow.events import Notice, OnEvent, Progress, StageFinished, StageStarted
from graftkit.flow.state.cancel import CancelToken

__all__ = ["ToldStage", "told_stage"]


@dataclass(frozen=True, slots=True)
class ToldStage:
    """What a stage tells.

    Attributes:
        name: Its name.
        tell: Called with events.
        cancel: Asked whether to stop.
    """

    name: str
    tell: OnEvent
    cancel: CancelToken

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Returns a function that tells how far it came, and stops when asked to."""

        def report(done: int, total: int) -> None:
            self.cancel.poll()
            self.tell(Progress(self.name, what, done, total))

        return report

    def notice(self, text: str) -> None:
        """Tells the user something."""
        self.tell(Notice(self.name, text))


@contextmanager
def told_stage(name: str, on_event: OnEvent, cancel: CancelToken | None = None) -> Iterator[ToldStage]:
    """Tells that a stage begins and, unless it fails, that it is over.

    Args:
        name: Its name.
        on_event: Called with events.
        cancel: Asked whether to stop; nothing asks for that when left out.

    Raises:
        Cancelled: It is to stop.
    """
    cancel = cancel or CancelToken()
    cancel.poll()
    on_event(StageStarted(name))
    start = time.perf_counter()
    yield ToldStage(name, on_event, cancel)
    on_event(StageFinished(name, round(time.perf_counter() - start, 3), {}))
