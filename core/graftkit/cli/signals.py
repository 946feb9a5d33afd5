"""Turns Ctrl-C and whatever else ends a process politely into a request to stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from graftkit.flow.state.cancel import CancelToken

__all__ = ["cancel_on_signals"]

_AT_ONCE = ("SIGINT", "SIGTERM", "SIGQUIT")
"""A second one of these stops at once: somebody has sent it on purpose."""

_ONCE = ("SIGHUP", "SIGXCPU")
"""A second one of these changes nothing: a terminal that closes is told by its shell and by the system, and a limit of
CPU time every second from then on."""


@contextmanager
def cancel_on_signals(*, silent: bool = False) -> Iterator[CancelToken]:
    """Gives a token that signals set; the former handlers are put back at the end.

    A signal that is ignored when this begins stays ignored, so that `nohup` keeps its meaning.

    Args:
        silent: Whether another process tells that a signal was heard.
    """
    token = CancelToken()

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if token.requested:
            if name in _AT_ONCE:
                raise KeyboardInterrupt
            return
        token.cancel(f"stopped by {name}")
        if silent:
            return
        # Not through sys.stderr, in the middle of whose own writes this may come; the terminal may be gone, too.
        with suppress(OSError):
            os.write(2, b"\nstopping after this pass; once more to stop at once\n")

    known = [getattr(signal, name) for name in (*_AT_ONCE, *_ONCE) if hasattr(signal, name)]
    heard = [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    former = {number: signal.signal(number, handle) for number in heard}
    try:
        yield token
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
