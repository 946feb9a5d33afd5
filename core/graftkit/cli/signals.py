"""Turns Ctrl-C and a polite kill into a request to stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from graftkit.flow.cancel import CancelToken

__all__ = ["cancel_on_signals"]


@contextmanager
def cancel_on_signals() -> Iterator[CancelToken]:
    """Gives a token that signals set; the former handlers are put back at the end."""
    token = CancelToken()

    def handle(number: int, frame: FrameType | None) -> None:
        if token.requested:
            raise KeyboardInterrupt
        token.cancel(f"stopped by {signal.Signals(number).name}")
        click.echo("\nstopping after this pass; once more to stop at once", err=True)

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield token
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
