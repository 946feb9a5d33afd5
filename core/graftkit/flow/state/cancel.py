"""Asks a run to stop, from a signal handler or another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from graftkit.arguments import check_callable, check_is, check_text
from graftkit.errors import Cancelled
from graftkit.flow.events import OnEvent

__all__ = ["CancelToken", "check_follower"]


class CancelToken:
    """A request to stop that a run looks at between passes, tensors, tokens and exports.

    Attributes:
        before_stop: Called once, with the reason, before it stops a run; may raise what is behind the request.

    Example:
        >>> token = CancelToken()
        >>> token.cancel("the user left")
        >>> token.requested
        True
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""
        self.before_stop: Callable[[str], None] = _nothing

    def cancel(self, reason: str = "") -> None:
        """Asks to stop; the first reason stays.

        Raises:
            RequestError: The reason is no text.
        """
        check_text(reason, "reason")
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def poll(self) -> None:
        """Returns if nobody asked.

        Raises:
            Cancelled: Somebody did.
        """
        if self._event.is_set():
            explain, self.before_stop = self.before_stop, _nothing
            reason = self._reason or "stopped by request"
            explain(reason)
            raise Cancelled(reason)


def check_follower(on_event: OnEvent | None, cancel: CancelToken | None) -> None:
    """Makes sure that whoever follows a command and may stop it can do so.

    Raises:
        RequestError: Either is something else.
    """
    if on_event is not None:
        check_callable(on_event, "on_event")
    if cancel is not None:
        check_is(cancel, CancelToken, "cancel")


def _nothing(reason: str) -> None:
    return None
