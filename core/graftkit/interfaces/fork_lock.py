"""Locks that a forked process begins with open: the threads that held them are not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from weakref import WeakSet

__all__ = ["ForkLock", "in_forked_process"]


def in_forked_process(call: Callable[[], None]) -> None:
    """Has a function called in each process that is forked from now on; nothing where the system has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


class ForkLock:
    """A lock that one thread may take again and again, and that is open in a forked process.

    A process that is forked while another thread holds a lock has the lock and not the thread: it would wait for ever.
    What the forking thread holds itself, it goes on holding.

    Example:
        >>> lock = ForkLock()
        >>> with lock, lock:
        ...     print("alone")
        alone
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner, self._depth = 0, 0
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner, self._depth = threading.get_ident(), self._depth + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = 0
        self._lock.release()

    def _open(self) -> None:
        if self._owner != threading.get_ident():
            self._lock = threading.RLock()
            self._owner, self._depth = 0, 0


_locks: WeakSet[ForkLock] = WeakSet()


def _open_all() -> None:
    for lock in list(_locks):
        lock._open()


in_forked_process(_open_all)
