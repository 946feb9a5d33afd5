"""Answers as OpenAI's clients read them: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from graftkit.flow.answering.answer_reader import Parts
from graftkit.interfaces.samples import ToolCall
from graftkit.serve.answers import Answer
from graftkit.serve.api_error import ApiError
from graftkit.serve.connection import while_connected

__all__ = ["ChatWire", "CompletionWire", "EventStream", "Wire", "events"]

_CALLS = "tool_calls"
"""Why an answer ended that calls functions."""

_READ_WITHIN = 60
"""Seconds that a client may leave a stream unread, once what the system holds for it is full."""


@dataclass(frozen=True)
class Wire:
    """How one answer is written.

    Attributes:
        model: The name of the model.
        id: The answer's name.
        created: When it was asked for, in seconds since 1970.
    """

    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    prefix = ""
    whole = ""
    part = ""

    def message(self, parts: Parts) -> dict[str, Any]:
        """Returns what a choice says as a whole."""
        raise NotImplementedError

    def delta(self, parts: Parts) -> dict[str, Any]:
        """Returns what a choice says in an event: a further piece, or nothing more."""
        raise NotImplementedError

    def first(self) -> dict[str, Any] | None:
        """Returns what a stream begins with, or None."""
        return None

    def completion(self, parts: Parts, answer: Answer) -> dict[str, Any]:
        """Returns a whole answer."""
        reason = _CALLS if parts.calls else answer.finish_reason
        choice = {"index": 0, **self.message(parts), "logprobs": None, "finish_reason": reason}
        return {**self._head(self.whole), "choices": [choice], "usage": _usage(answer)}

    def event(self, said: dict[str, Any] | None, finish_reason: str | None = None) -> dict[str, Any]:
        """Returns an event of a stream."""
        choice = {"index": 0, **(said or {}), "logprobs": None, "finish_reason": finish_reason}
        return {**self._head(self.part), "choices": [choice]}

    def usage(self, answer: Answer) -> dict[str, Any]:
        """Returns the last event of a stream that ends with the counts of its tokens."""
        return {**self._head(self.part), "choices": [], "usage": _usage(answer)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"{self.prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}


class ChatWire(Wire):
    """How an answer to a conversation is written."""

    prefix, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def message(self, parts: Parts) -> dict[str, Any]:
        """Returns the assistant's message."""
        beside: dict[str, Any] = {"reasoning_content": parts.reasoning} if parts.reasoning else {}
        if parts.calls:
            beside["tool_calls"] = [_call(call) for call in parts.calls]
        content = parts.content if parts.content.strip() or not parts.calls else None
        return {"message": {"role": "assistant", "content": content, "refusal": None, **beside}}

    def delta(self, parts: Parts) -> dict[str, Any]:
        """Returns a further piece of the message."""
        said: dict[str, Any] = {"reasoning_content": parts.reasoning, "content": parts.content}
        delta = {key: text for key, text in said.items() if text}
        if parts.calls:
            delta["tool_calls"] = [{"index": number, **_call(call)} for number, call in enumerate(parts.calls)]
        return {"delta": delta}

    def first(self) -> dict[str, Any]:
        """Returns who speaks."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}}


class CompletionWire(Wire):
    """How a text's continuation is written."""

    prefix, whole, part = "cmpl", "text_completion", "text_completion"

    def message(self, parts: Parts) -> dict[str, Any]:
        """Returns the text."""
        return {"text": parts.content}

    def delta(self, parts: Parts) -> dict[str, Any]:
        """Returns a further piece of it."""
        return {"text": parts.content}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
    }


async def events(answer: Answer, wire: Wire, *, include_usage: bool) -> AsyncIterator[str]:
    """Yields an answer that has begun as server-sent events; one that fails in the middle ends with its error.

    Args:
        answer: The answer.
        wire: How it is written.
        include_usage: Whether the counts of its tokens come last; every other event says that it has none, then.
    """
    beside: dict[str, Any] = {"usage": None} if include_usage else {}
    try:
        if (first := wire.first()) is not None:
            yield _event({**wire.event(first), **beside})
        async for piece in answer.pieces():
            if (parts := answer.reader.push(piece)) != Parts():
                yield _event({**wire.event(wire.delta(parts)), **beside})
        rest = answer.reader.finish()
        if rest.reasoning or rest.content:
            yield _event({**wire.event(wire.delta(replace(rest, calls=()))), **beside})
        if rest.calls:
            yield _event({**wire.event(wire.delta(Parts(calls=rest.calls))), **beside})
        yield _event({**wire.event(wire.delta(Parts()), _CALLS if rest.calls else answer.finish_reason), **beside})
        if include_usage:
            yield _event(wire.usage(answer))
    except ApiError as error:
        yield _event(error.body())
        return
    yield "data: [DONE]\n\n"


_OTHER_LINE_ENDS = {ord(end): json.dumps(end)[1:-1] for end in "\x85\u2028\u2029"}
"""What ends no line of server-sent events, but where clients take them apart as Python's `str.splitlines` does."""


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False).translate(_OTHER_LINE_ENDS)}\n\n"


class EventStream(Response):
    """A response that is sent as it comes, as long as the client is there.

    Args:
        parts: The events.
        closed: Called once nothing more is sent.
    """

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[str], closed: Callable[[], None]) -> None:
        self._parts, self._closed = parts, closed
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            with suppress(ClientDisconnect, OSError):  # a timeout, too, is an OSError
                await while_connected(receive, self._send(send))
        finally:
            self._closed()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._parts:
            async with asyncio.timeout(_READ_WITHIN):
                await send({"type": "http.response.body", "body": part.encode("utf-8"), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
