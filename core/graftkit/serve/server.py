"""Runs an application on this machine until it is asked to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from graftkit.arguments import check_is, check_number, check_text
from graftkit.errors import RequestError
from graftkit.flow.state.cancel import CancelToken
from graftkit.serve.connection import WholeBodies

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["bind", "is_loopback", "serve", "url_of"]

_POLL = 0.05
"""Seconds between looks at whether to stop."""

_STOP_WITHIN = 5
"""Seconds that answers, which are stopped where they are, may take to be sent."""

_MOST_CONNECTIONS = 100
"""Connections whose requests are answered; those of further ones are told to come again later."""

_MOST_HELD = 200
"""Connections that are held at all."""

_TOLD_AGAIN_AFTER = 60
"""Seconds in which the same warning is logged once."""

_MOST_TOLD = 1000
"""Different warnings that are remembered at most."""

_REQUEST_WITHIN = 30
"""Seconds in which the head of a connection's request has to come."""


class _Connection(H11Protocol):
    """Closes a connection that a request's head does not come on: idle ones would keep others from connecting."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_HELD:
            self.logger.warning("over %d connections are open: further ones are closed", _MOST_HELD)
            transport.abort()
        self._wait_for_request()

    def shutdown(self) -> None:
        """Ends the connection: at once where the request has not come to its end, and in time whatever the client does.

        An answer that is not read to its end would be waited for.
        """
        super().shutdown()
        if self.cycle is not None and self.cycle.more_body:
            self.transport.abort()
        else:
            self.loop.call_later(_STOP_WITHIN - 1, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._waiting is not None:
            self._waiting.cancel()

    def _wait_for_request(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(_REQUEST_WITHIN, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Once(logging.Filter):
    """Lets each warning pass once in a while; how often it came meanwhile is said the next time.

    Attributes:
        silent: Whether nothing passes any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self._told: dict[str, float] = {}
        self._kept: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether a record is logged; what comes with an exception always is."""
        text, now = str(record.msg), time.monotonic()
        if self.silent or record.exc_info:
            return not self.silent
        if len(self._told) >= _MOST_TOLD and text not in self._told:  # texts of a client's own: begin anew
            self._told.clear()
            self._kept.clear()
        if now - self._told.get(text, float("-inf")) < _TOLD_AGAIN_AFTER:
            self._kept[text] = self._kept.get(text, 0) + 1
            return False
        self._told[text] = now
        if kept := self._kept.pop(text, 0):
            record.msg, record.args = f"{record.getMessage()} ({kept:,} more since this was last told)", None
        return True


@contextmanager
def _no_flood(name: str, once: _Once) -> Iterator[None]:
    """Keeps clients from filling a log with a line for each of their requests."""
    logger = logging.getLogger(name)
    logger.addFilter(once)
    try:
        yield
    finally:
        logger.removeFilter(once)


def bind(host: str, port: int) -> socket.socket:
    """Takes an address, at which nothing is answered before `serve`.

    Raises:
        RequestError: It is taken by another program, or is none of this machine's.
    """
    check_text(host, "host")
    check_number(port, "port", 0, 65535)
    taken: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, UnicodeError) as error:
        if taken is not None:
            taken.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = "Name another one: --port 0 takes any that is free."
        raise RequestError(f"the address can't be taken: {reason}", where=f"{host}:{port}", hint=hint) from None
    return taken


def is_loopback(bound: socket.socket) -> bool:
    """Tells whether an address is reached from this machine alone."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Returns where the API of an address is."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(
    app: Starlette,
    bound: socket.socket,
    cancel: CancelToken,
    *,
    on_start: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serves an application until somebody asks to stop, by the token, or by SIGINT or SIGTERM in the main thread.

    Args:
        app: The application.
        bound: An address of `bind`; it is closed in the end.
        cancel: Asks to stop.
        on_start: Called once requests are answered.
        on_stop: Called in the event loop once it is asked to stop: stops what would be waited for.
    """
    check_is(cancel, CancelToken, "cancel")
    config = uvicorn.Config(
        WholeBodies(app),
        http=_Connection,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_WITHIN,
    )
    told = _Once()
    with bound, _no_flood("uvicorn.error", told), _no_flood("asyncio", told), asyncio.Runner() as runner:
        try:
            runner.run(_serve(uvicorn.Server(config), bound, cancel, on_start, on_stop))
        except KeyboardInterrupt:  # a second Ctrl-C: what it cuts off has not failed
            told.silent = True
            raise


async def _serve(
    server: uvicorn.Server,
    bound: socket.socket,
    cancel: CancelToken,
    on_start: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not (server.started or serving.done()):
            await asyncio.sleep(_POLL / 5)
        on_start()
        while not (cancel.requested or server.should_exit or serving.done()):
            await asyncio.sleep(_POLL)
    finally:
        server.should_exit = True
        on_stop()
        await serving
