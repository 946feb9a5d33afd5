"""Whether a reference may be fetched from elsewhere: what a file from elsewhere names may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["network_allowed", "this_machine_alone"]

_ALLOWED: ContextVar[bool] = ContextVar("network_allowed", default=True)


def network_allowed() -> bool:
    """Tells a model source whether it may fetch what a reference names, or opens what lies on this machine."""
    return _ALLOWED.get()


@contextmanager
def this_machine_alone() -> Iterator[None]:
    """Has references opened on this machine alone for a while: a manifest names them, and not whoever asks."""
    before = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(before)
