"""Asks an ASGI application without a network, and may leave in the middle of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Exchange", "ask"]


class Exchange:
    """A request and what is answered, message by message.

    Args:
        app: The application.
        method: The HTTP method.
        path: The path.
        body: The body: bytes, or what becomes JSON.
        headers: Headers that replace the usual ones; None leaves one out, a list gives it several times.
        ends: Whether the body comes to its end.
    """

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str | Sequence[str] | None] | None = None,
        *,
        ends: bool = True,
    ) -> None:
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._came = asyncio.Event()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": not ends})
        named: dict[str, Any] = {"host": "localhost:8000", "content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                (name.encode(), value.encode())
                for name, given in named.items()
                for value in ([given] if isinstance(given, str) else given or ())
            ],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
        }
        self.status, self.headers, self.data = 0, dict[str, str](), b""
        self.task = asyncio.ensure_future(app(scope, self._incoming.get, self._take))

    async def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.data += message.get("body", b"")
        self._came.set()

    def leave(self) -> None:
        """Closes the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def until(self, text: str) -> None:
        """Waits until a text has come."""
        while text.encode() not in self.data:
            self._came.clear()
            async with asyncio.timeout(10):
                await self._came.wait()

    async def done(self) -> Exchange:
        """Waits for the end of the answer."""
        async with asyncio.timeout(10):
            await self.task
        return self

    @property
    def json(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.data)

    @property
    def events(self) -> list[Any]:
        """The answer's server-sent events; the last one is "[DONE]" where it was finished."""
        texts = [text.removeprefix("data: ") for text in self.data.decode().split("\n\n") if text]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]


def ask(app: Any, method: str, path: str, body: Any = b"", headers: Mapping[str, str | None] | None = None) -> Exchange:
    """Returns a whole exchange, in an event loop of its own."""

    async def exchange() -> Exchange:
        return await Exchange(app, method, path, body, headers).done()

    return asyncio.run(exchange())
