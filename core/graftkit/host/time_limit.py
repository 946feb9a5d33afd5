"""Says what takes too long while it still goes on, and ends it where asked to."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from graftkit.interfaces.fork_lock import ForkLock, in_forked_process

__all__ = ["PluginTimeout", "time_limit"]

_POLL_SECONDS = 0.25
_SIGNAL = getattr(signal, "SIGALRM", None)


class PluginTimeout(BaseException):
    """What an import that takes too long is ended with; no `except Exception` of a plugin's takes it."""


@dataclass(slots=True, eq=False)
class _Running:
    who: str
    what: str
    seconds: float
    advice: str
    due: float
    ends: bool
    thread: int
    told: bool = False


_running: list[_Running] = []
_thread: threading.Thread | None = None
_lock = ForkLock()


@contextmanager
def time_limit(who: str, what: str, seconds: float, advice: str, *, end: bool = False) -> Iterator[None]:
    """Writes a line to standard error when its body takes longer than a limit.

    Args:
        who: Whose code runs in the body.
        what: What of it, such as "its import".
        seconds: The limit; 0 for none.
        advice: What to do about it, the line's end.
        end: Whether the body is ended then, too. That is possible in the main thread, where the system has signals;
            elsewhere the line is all.

    Raises:
        PluginTimeout: The body was ended.
    """
    if not seconds:
        yield
        return
    ends = end and _SIGNAL is not None and threading.current_thread() is threading.main_thread()
    running = _Running(who, what, seconds, advice, time.monotonic() + seconds, ends, threading.get_ident())
    former = signal.signal(_SIGNAL, _handler(running)) if ends and _SIGNAL is not None else None
    _watch_over(running)
    try:
        yield
    finally:
        _running.remove(running)
        if ends and _SIGNAL is not None:
            signal.signal(_SIGNAL, signal.SIG_DFL if former is None else former)


def _forget_others() -> None:
    """Forgets what other threads run, which a process that is forked meanwhile lacks."""
    _running[:] = [running for running in _running if running.thread == threading.get_ident()]


in_forked_process(_forget_others)


def _handler(running: _Running) -> Callable[[int, FrameType | None], None]:
    former = signal.getsignal(_SIGNAL) if _SIGNAL is not None else None

    def handle(number: int, frame: FrameType | None) -> None:
        if running.told and running in _running:
            raise PluginTimeout(f"{running.what} took longer than {running.seconds:g} s and was ended")
        if callable(former):
            former(number, frame)

    return handle


def _watch_over(running: _Running) -> None:
    """Lets the thread look at it, too; there is one while something is running."""
    global _thread
    with _lock:
        _running.append(running)
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_watch, name="graftkit-time-limit", daemon=True)
            _thread.start()


def _watch() -> None:
    global _thread
    while True:
        time.sleep(_POLL_SECONDS)
        with _lock:
            late = [running for running in _running if time.monotonic() >= running.due]
            if not _running:
                _thread = None
                return
        for running in late:
            _tell(running)
            if running.ends and _SIGNAL is not None:
                with suppress(ProcessLookupError, ValueError):
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)


def _tell(running: _Running) -> None:
    """Writes past Python's own streams, which whoever hangs may have replaced."""
    if not running.told:
        running.told = True
        with suppress(OSError):
            os.write(
                2, f"{running.who}: {running.what} has taken {running.seconds:g} s so far. {running.advice}\n".encode()
            )
