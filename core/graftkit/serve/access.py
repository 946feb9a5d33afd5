"""Who may ask: the names that the server is called by, and the key that a client has to show."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from graftkit.arguments import check_text
from graftkit.errors import RequestError
from graftkit.serve.api_error import ApiError

__all__ = ["LOOPBACK_NAMES", "KnownHosts", "KnownKey", "check_key", "json_error"]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What a server that this machine alone reaches is called."""

_OPEN_TO_ALL = "/health"


def check_key(key: str, where: str) -> None:
    """Makes sure that a header can carry a key.

    Args:
        key: The key.
        where: Where it stands, for the error.

    Raises:
        RequestError: None could.
    """
    check_text(key, where)
    if not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise RequestError(
            "it is set, but holds no key: one has visible characters of ASCII, and no space around them",
            where=where,
            hint="Leave it unset to serve without a key.",
        )


def json_error(error: ApiError) -> JSONResponse:
    """Returns the response that tells an error."""
    return JSONResponse(error.body(), error.status, error.headers)


class KnownHosts:
    """Refuses requests for other names than the server's own.

    A page whose own name is made to lead to this machine (DNS rebinding) counts for the browser as of the same origin
    as the server, but its requests carry that name.

    Args:
        app: The application.
        names: The names, in small letters.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "http" and _name(Headers(scope=scope).getlist("host")) not in self._names:
            message = f"the request's Host is none of this server's: {', '.join(sorted(self._names))}"
            await json_error(ApiError(403, message, code="unknown_host"))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _name(hosts: list[str]) -> str:
    """Returns the name in a request's one Host header, without the port; "" where there is another number of them."""
    if len(hosts) != 1:
        return ""
    host = hosts[0].strip().lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


class KnownKey:
    """Refuses requests without the key, but for that whether the server is there.

    Args:
        app: The application.
        key: The key.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._header = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "http" and scope["path"] != _OPEN_TO_ALL:
            said = "\n".join(Headers(scope=scope).getlist("authorization")).encode("latin-1")
            scheme, space, key = said.partition(b" ")
            given = scheme.title() + space + key  # a scheme's case counts for nothing
            if not hmac.compare_digest(given, self._header):
                message = "this server's API key is missing or wrong: it goes into the header Authorization: Bearer KEY"
                error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
                await json_error(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
