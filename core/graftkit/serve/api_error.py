"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ApiError", "invalid", "overloaded", "stopping"]

_SERVER_FROM = 500


class ApiError(Exception):
    """What a client is answered in place of a completion.

    Args:
        status: The HTTP status.
        message: What was wrong, for people.
        code: What was wrong, for programs.
        param: The path of the parameter that is wrong, such as "messages[0].content".
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Returns the answer's JSON."""
        kind = "server_error" if self.status >= _SERVER_FROM else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Returns the error of a parameter that is wrong."""
    return ApiError(400, message, code=code, param=param or None)


def overloaded(waiting: int) -> ApiError:
    """Returns the error of a request that would wait behind too many others."""
    message = f"one answer is made at a time, and {waiting} requests wait already: ask again later"
    return ApiError(503, message, code="overloaded", headers={"Retry-After": "5"})


def stopping() -> ApiError:
    """Returns the error of a request that the server stops before it is answered."""
    return ApiError(503, "the server is stopping", code="stopping")
