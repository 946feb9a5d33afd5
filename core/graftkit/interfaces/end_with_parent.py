"""Has a process end with the one that started it, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1
"""Linux's `prctl`: the signal that the system sends a process when its parent ends."""


def end_with_parent(parent: int) -> None:
    """Has this process killed when its parent ends: who is killed himself can't end what he has started.

    Linux does it, whatever this process computes meanwhile. Elsewhere on POSIX a thread looks once a second: the system
    gives the children of a process that ended to another one.

    Args:
        parent: The process that has started this one. Where that has ended by now, this one does so at once.
    """
    if os.name != "posix":
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        threading.Thread(target=_look_for, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
