"""Calls in threads of their own, so that nobody waits for a server, or not for long."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

__all__ = ["Sender", "within"]

T = TypeVar("T")


def within(seconds: float, do: Callable[[], T]) -> T:
    """Calls something in a thread of its own, and returns what that returns.

    Args:
        seconds: How long it is waited for.
        do: What is called.

    Raises:
        TimeoutError: It takes longer. Nobody listens to it then, and it ends with the process.
        Exception: What it raises.
    """
    found: Future[T] = Future()

    def work() -> None:
        try:
            found.set_result(do())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=work, name="graftkit-within", daemon=True).start()
    return found.result(seconds)


class Sender(Generic[T]):
    """Hands things on in their order, as many at a time as have come together meanwhile.

    Args:
        send: What sends some of them; what it raises is kept, and those are not sent again.
        at_most: How many it is given at a time.
    """

    def __init__(self, send: Callable[[Sequence[T]], None], *, at_most: int) -> None:
        self._send, self._at_most = send, at_most
        self._waiting: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._last: Callable[[], object] = lambda: None
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._work, name="graftkit-sender", daemon=True)
        self._thread.start()

    def put(self, things: Sequence[T]) -> None:
        """Has things sent; returns at once."""
        for thing in things:
            self._waiting.put(thing)

    def errors(self) -> Sequence[Exception]:
        """Takes the errors that there were since it was last asked."""
        found, self._errors = self._errors, []
        return found

    def close(self, seconds: float, last: Callable[[], object] = lambda: None) -> bool:
        """Waits until all is sent.

        Args:
            seconds: How long at most.
            last: What is called then, in the thread, too; what it raises is kept.

        Returns:
            Whether it is.
        """
        self._last = last
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while together := self._next():
            self._try(partial(self._send, together))
        self._try(self._last)

    def _next(self) -> list[T]:
        """Waits for what is to be sent next, and returns it with what has come meanwhile; nothing at the end."""
        found: list[T] = []
        while not found or (len(found) < self._at_most and not self._waiting.empty()):
            thing = self._waiting.get()
            if thing is None:
                if found:
                    self._waiting.put(None)  # nothing is put behind it
                break
            found.append(thing)
        return found

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:
            self._errors.append(error)
