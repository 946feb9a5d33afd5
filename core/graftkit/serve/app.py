"""The application: its routes, and who may use them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graftkit.arguments import check_is, check_text, check_texts
from graftkit.flow.answering.answer_reader import Parts
from graftkit.serve.access import LOOPBACK_NAMES, KnownHosts, KnownKey, check_key, json_error
from graftkit.serve.answers import Answer, AnswerQueue, Ask
from graftkit.serve.api_error import ApiError, invalid, stopping
from graftkit.serve.connection import read_json, while_connected
from graftkit.serve.limits import Limits
from graftkit.serve.prompt_process import lay_out_within
from graftkit.serve.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationOptions,
    chat_request,
    completion_request,
    embedding_request,
)
from graftkit.serve.vectors import Vectors, listed
from graftkit.serve.wire import ChatWire, CompletionWire, EventStream, Wire, events

if TYPE_CHECKING:
    from graftkit.flow.answering.reloaded_head import HeadModel
    from graftkit.flow.answering.reloaded_model import ReloadedModel, Reply

__all__ = ["create_app"]


def create_app(
    queue: AnswerQueue,
    name: str,
    *,
    limits: Limits | None = None,
    hosts: frozenset[str] | None = LOOPBACK_NAMES,
    origins: Sequence[str] = (),
    api_key: str | None = None,
) -> Starlette:
    """Returns an ASGI application that answers as OpenAI's API does.

    Args:
        queue: What asks the model. It is stopped when the application is shut down.
        name: What the model is called.
        limits: How much a client may ask for.
        hosts: The names that the server is called by, in small letters, as they stand in a request's Host without the
            port; None where any will do, as behind a proxy that checks it.
        origins: Origins of pages that browsers may let ask, such as "http://localhost:3000".
        api_key: What a client has to show; None for nothing.

    Raises:
        RequestError: One of the arguments is of another type, or no header could carry the key.

    Example:
        ```python
        model = graftkit.flow.answering.reload.reload("runs/quickstart")
        app = create_app(AnswerQueue(model), "quickstart")
        uvicorn.run(app, port=8000)
        ```
    """
    check_is(queue, AnswerQueue, "queue")
    check_text(name, "name")
    if limits is not None:
        check_is(limits, Limits, "limits")
    if api_key is not None:
        check_key(api_key, "api_key")
    origins = check_texts(origins, "origins")
    names = None if hosts is None else frozenset(check_texts(hosts, "hosts"))
    service = _Service(queue, name, limits or Limits())
    middleware = [
        *([Middleware(KnownHosts, names=names)] if names is not None else []),
        *([_cors(origins)] if origins else []),
        *([Middleware(KnownKey, key=api_key)] if api_key is not None else []),
    ]
    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.complete, methods=["POST"]),
        Route("/v1/embeddings", service.embed, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{model:path}", service.model),
        Route("/health", service.health),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        queue.stop()

    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        ApiError: _answer_error,
        HTTPException: _answer_http_error,
        ClientDisconnect: _answer_nobody,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        allow_private_network=True,  # what a page on the net asks for at this machine's own address
        max_age=600,
    )


async def _answer_error(request: Request, error: ApiError) -> Response:
    return json_error(error)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    """Answers what starlette raises itself: for a path or a method that there is none of."""
    path = request.url.path[:200]
    message = f"there is no {request.method} {path}" if error.status_code == 405 else f"there is no {path}"
    found = ApiError(error.status_code, f"{message}; the API's paths begin with /v1", code="unknown_url")
    found.headers |= dict(error.headers or {})
    return json_error(found)


async def _answer_nobody(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)


class _Service:
    """What the routes lead to; the arguments are those of `create_app`."""

    def __init__(self, queue: AnswerQueue, name: str, limits: Limits) -> None:
        self._queue, self._name, self._limits = queue, name, limits
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        """Tells whether questions are taken."""
        if self._queue.stopping:
            raise stopping()
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """Lists the one model."""
        return JSONResponse({"object": "list", "data": [self._facts()]})

    async def model(self, request: Request) -> Response:
        """Tells of the one model."""
        asked = request.path_params["model"]
        if asked != self._name:
            message = f"there is no model {asked[:100]!r} here; {self._name!r} is served"
            raise ApiError(404, message, code="model_not_found", param="model")
        return JSONResponse(self._facts())

    def _facts(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": self._created, "owned_by": "graftkit"}

    async def chat(self, request: Request) -> Response:
        """Answers a conversation."""
        self._refuse_other(embeds=False)
        asked = chat_request(await read_json(request, self._limits), self._name, self._limits)
        return await self._answered(request, _asks_chat(asked, self._limits), asked.options, ChatWire(self._name))

    async def complete(self, request: Request) -> Response:
        """Continues a text."""
        self._refuse_other(embeds=False)
        asked = completion_request(await read_json(request, self._limits), self._name, self._limits)
        return await self._answered(
            request, _asks_completion(asked, self._limits), asked.options, CompletionWire(self._name)
        )

    async def embed(self, request: Request) -> Response:
        """Gives texts their vectors."""
        self._refuse_other(embeds=True)
        asked = embedding_request(await read_json(request, self._limits), self._name, self._limits)
        answer = self._queue.ask(_asks_vectors(asked, self._limits))
        try:
            await while_connected(request.receive, _whole(answer))
            return JSONResponse(listed(answer.vectors, self._name, as_base64=asked.as_base64))
        finally:
            answer.cancel()

    def _refuse_other(self, *, embeds: bool) -> None:
        """Refuses a request that a model of another kind answers.

        Raises:
            ApiError: The one that is served is none of these.
        """
        if self._queue.embeds is embeds:
            return
        told = "writes answers: POST /v1/chat/completions or /v1/completions asks it"
        if self._queue.embeds:
            told = "gives texts vectors, and writes no answers: POST /v1/embeddings asks it"
        raise invalid("model", f"the model {self._name!r} {told}", "unsupported_value")

    async def _answered(self, request: Request, ask: Ask, options: GenerationOptions, wire: Wire) -> Response:
        """Returns an answer once it is made, or as soon as it has begun where it is streamed."""
        answer = self._queue.ask(ask)
        streams = False
        try:
            if options.stream:
                await while_connected(request.receive, answer.begun())
                streams = True
                return EventStream(events(answer, wire, include_usage=options.include_usage), answer.cancel)
            parts = await while_connected(request.receive, _whole(answer))
            return JSONResponse(wire.completion(parts, answer))
        finally:
            if not streams:
                answer.cancel()


async def _whole(answer: Answer) -> Parts:
    """Returns an answer, whole."""
    await answer.begun()
    pieces = [answer.reader.push(piece) async for piece in answer.pieces()]
    last = answer.reader.finish()
    reasoning, content = (
        "".join(getattr(piece, part) for piece in (*pieces, last)) for part in ("reasoning", "content")
    )
    return Parts(reasoning, content, last.calls)


def _asks_chat(asked: ChatRequest, limits: Limits) -> Ask:
    def ask(model: ReloadedModel, unwanted: Callable[[], bool]) -> Reply:
        return model.answer(asked.messages, tools=asked.tools, **_how(model, asked.options, limits, unwanted))

    return ask


def _asks_completion(asked: CompletionRequest, limits: Limits) -> Ask:
    def ask(model: ReloadedModel, unwanted: Callable[[], bool]) -> Reply:
        return model.stream(asked.prompt, plain=True, **_how(model, asked.options, limits, unwanted))

    return ask


def _asks_vectors(asked: EmbeddingRequest, limits: Limits) -> Ask:
    def ask(model: HeadModel, unwanted: Callable[[], bool]) -> Vectors:
        return Vectors(model, asked, lay_out_within(limits.prompt_seconds, unwanted))

    return ask


def _how(
    model: ReloadedModel, options: GenerationOptions, limits: Limits, unwanted: Callable[[], bool]
) -> dict[str, Any]:
    """Returns how a model is asked.

    Without temperature, top_p, top_k and min_p the likeliest tokens are taken. With a seed nothing is taken over of
    what was computed for the request before, so that the same request has the same answer, bit for bit.
    """
    from graftkit.model.sampling import Sampler, Sampling

    seed = secrets.randbits(63) if options.seed is None else options.seed
    if options.seed is not None:
        model.forget()
    sampler = Sampler(Sampling.asked(model.generation, seed=seed, **options.sampling))
    return {
        "max_new_tokens": options.max_new_tokens,
        "sampler": sampler,
        "stop_texts": options.stop,
        "lay_out": lay_out_within(limits.prompt_seconds, unwanted),
        "unwanted": unwanted,
    }
