"""What depends on the client: its request's body, and the work for its answer as long as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graftkit.interfaces.bounded_json import parse_strict_json
from graftkit.serve.access import json_error
from graftkit.serve.api_error import ApiError, invalid
from graftkit.serve.limits import Limits

__all__ = ["WholeBodies", "read_json", "while_connected"]

_T = TypeVar("_T")

_MOST_UNREAD, _UNREAD_WITHIN = 64 << 20, 5.0
"""Bytes of a body that nobody wants, and seconds in which they come, that are waited for before it is answered."""

_CLOSE = {"Connection": "close"}
"""Of an answer to a body that was not read to its end."""


async def read_json(request: Request, limits: Limits) -> Any:
    """Returns the JSON of a request's body.

    Its content type must be JSON's: a page of another origin can send that only where the server allows it to.

    Raises:
        ApiError: It is of another type, too large, no JSON, or does not come in time.
    """
    given = request.headers.getlist("content-type")
    kinds = {kind.partition(";")[0].strip().lower() for kind in given}
    if kinds != {"application/json"}:
        told = ", ".join(sorted(kinds))[:100]
        message = f"the body's content type is {told or 'not given'}; it has to be application/json"
        raise ApiError(415, message, code="unsupported_media_type", headers=_CLOSE)
    if {encoding.lower() for encoding in request.headers.getlist("content-encoding")} - {"identity"}:
        raise ApiError(415, "compressed bodies are not read", code="unsupported_media_type", headers=_CLOSE)
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _read(request, limits.body_bytes)
    except TimeoutError:
        message = f"the body did not come within {limits.body_seconds:g} seconds"
        raise ApiError(408, message, code="timeout", headers=_CLOSE) from None
    try:
        return parse_strict_json(body, limits.json_values, unicode=True)
    except ValueError as error:
        raise invalid("", f"the body is no JSON: {error}", "invalid_json") from None


async def _read(request: Request, most: int) -> bytes:
    """Returns a body of at most so many bytes."""
    length = request.headers.get("content-length", "")
    body = bytearray()
    if not (length.isdecimal() and int(length[:20]) > most):
        async for part in request.stream():
            body += part
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise ApiError(413, f"the body has over {most:,} bytes", code="request_too_large", headers=_CLOSE)


class WholeBodies:
    """Reads a request's body to its end before an answer begins that did not want it.

    A client that was still sending would find the connection closed, and never read why.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:  # a proxy may read another request in it
            message = "the request gives its length twice: by Content-Length and by Transfer-Encoding"
            await json_error(ApiError(400, message, code="invalid_length", headers=_CLOSE))(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        more = "expect" not in headers and int(length[:20]) <= _MOST_UNREAD  # else nothing is sent, or too much

        async def receive_part() -> Message:
            nonlocal more
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal more
            if more and message["type"] == "http.response.start":
                with suppress(TimeoutError):
                    async with asyncio.timeout(_UNREAD_WITHIN):
                        left = _MOST_UNREAD
                        while more and left > 0:
                            left -= len((await receive_part()).get("body", b""))
                more = False
            await send(message)

        await self._app(scope, receive_part, answer)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """Does work, but stops it as soon as the client is gone.

    Args:
        receive: The connection, whose request has been read to its end.
        work: The work.

    Raises:
        ClientDisconnect: The client went first.
    """
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientDisconnect
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
