"""Whether a reference may be fetched from elsewhere: what a file from elsewhere names may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["network_allowed", "no_network_if", "offline_asked", "this_machine_alone"]

_ALLOWED: ContextVar[bool] = ContextVar("network_allowed", default=True)
_OFFLINE: ContextVar[bool] = ContextVar("offline_asked", default=False)


def network_allowed() -> bool:
    """Tells a model source whether it may fetch what a reference names, or opens what lies on this machine."""
    return _ALLOWED.get()


def offline_asked() -> bool:
    """Tells whether that is so because whoever calls asked for `offline`, which an error may say."""
    return _OFFLINE.get()


@contextmanager
def no_network_if(offline: bool) -> Iterator[None]:
    """Has nothing fetched for a while where that is asked for."""
    if not offline:
        yield
        return
    asked = _OFFLINE.set(True)
    try:
        with this_machine_alone():
            yield
    finally:
        _OFFLINE.reset(asked)


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """Has references opened on this machine alone for a while: a manifest names them, and not whoever asks."""
    before = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(before)
