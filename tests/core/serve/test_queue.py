"""One answer at a time: who waits, who is turned away, and what ends an answer early."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from asgi_client import Exchange
from graftkit.cli.terminal import guarded_streams
from graftkit.errors import RunError
from graftkit.flow.answering.answer_reader import AnswerReader
from graftkit.flow.answering.call_notation import CallNotation
from graftkit.flow.answering.reasoning_notation import ReasoningNotation
from graftkit.serve import wire
from graftkit.serve.answers import AnswerQueue
from graftkit.serve.app import create_app

PATH = "/v1/chat/completions"


class SlowReply:
    """An answer whose pieces the test lets out one by one."""

    prompt_tokens, stopped = 3, "end"

    def __init__(self, pieces: queue.Queue[Any]) -> None:
        self.tokens, self._pieces, self.closed = 0, pieces, threading.Event()
        self.reader = AnswerReader()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece = self._pieces.get(timeout=0.01)
        except queue.Empty:
            return ""  # as a token that is no text yet
        if piece is None:
            raise StopIteration
        if isinstance(piece, BaseException):
            raise piece
        self.tokens += 1
        return str(piece)

    def close(self) -> None:
        self.closed.set()


class SlowModel:
    """A model that answers what `say` is given; `asked` are the contents that it was asked."""

    generation: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self._pieces: queue.Queue[Any] = queue.Queue()
        self.asked: list[str] = []
        self.replies: list[SlowReply] = []

    def say(self, *pieces: Any) -> None:
        for piece in pieces:
            self._pieces.put(piece)

    def answer(self, messages: Any, tools: Any = (), **options: Any) -> SlowReply:
        self.asked.append(messages[0].content)
        self.replies.append(SlowReply(self._pieces))
        if tools:
            calls = CallNotation("<call>", None, "</call>", "name", "arguments")
            self.replies[-1].reader = AnswerReader(ReasoningNotation("<think>", "</think>"), calls)
        return self.replies[-1]


class Server:
    """An application whose model is slow; within an event loop."""

    def __init__(self, waiting: int = 8) -> None:
        self.model = SlowModel()
        self.queue = AnswerQueue(self.model, waiting=waiting)  # type: ignore[arg-type]
        self._app = create_app(self.queue, "slow")

    def ask(self, content: str, **body: Any) -> Exchange:
        return Exchange(self._app, "POST", PATH, {"messages": [{"role": "user", "content": content}], **body})

    async def until_asked(self, content: str) -> None:
        async with asyncio.timeout(10):
            while content not in self.model.asked:
                await asyncio.sleep(0.005)

    async def until_closed(self, number: int) -> None:
        assert await asyncio.to_thread(self.model.replies[number].closed.wait, 10)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.queue.stop()


def test_requests_wait_for_one_another_and_too_many_are_turned_away() -> None:
    async def scene() -> None:
        async with Server(waiting=2) as server:
            first, second, third = (server.ask(name) for name in ("one", "two", "three"))
            await server.until_asked("one")
            fourth = await server.ask("four").done()
            assert fourth.status == 503 and fourth.json["error"]["code"] == "overloaded"
            assert int(fourth.headers["retry-after"]) > 0
            assert server.model.asked == ["one"]
            server.model.say("a", None, "b", None, "c", None)
            answers = [(await one.done()).json["choices"][0]["message"]["content"] for one in (first, second, third)]
            assert answers == ["a", "b", "c"] and server.model.asked == ["one", "two", "three"]
            server.model.say("d", None)
            assert (await server.ask("again").done()).status == 200

    asyncio.run(scene())


def test_a_client_that_leaves_stops_its_answer_and_lets_the_next_one_in() -> None:
    async def scene() -> None:
        async with Server(waiting=1) as server:
            whole, next_ = server.ask("whole"), server.ask("streamed", stream=True)
            await server.until_asked("whole")
            whole.leave()
            await server.until_closed(0)
            await whole.done()
            await server.until_asked("streamed")
            server.model.say("a")
            await next_.until('"content": "a"')
            next_.leave()
            await server.until_closed(1)
            await next_.done()
            assert "[DONE]" not in next_.data.decode()
            server.model.say("b", None)
            assert (await server.ask("last").done()).json["choices"][0]["message"]["content"] == "b"

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_it_waits_is_never_answered(stream: bool) -> None:
    async def scene() -> None:
        async with Server(waiting=1) as server:
            first = server.ask("one")
            await server.until_asked("one")
            waiting = server.ask("two", stream=stream)
            await asyncio.sleep(0.02)
            waiting.leave()
            await waiting.done()
            assert not waiting.data
            third = server.ask("three")  # in the place that is free again
            server.model.say("a", None, "b", None)
            await first.done()
            assert (await third.done()).status == 200 and server.model.asked == ["one", "three"]

    asyncio.run(scene())


def test_a_stream_is_sent_as_it_is_made() -> None:
    async def scene() -> None:
        async with Server() as server:
            streamed = server.ask("one", stream=True)
            for piece in ("first", "second"):
                server.model.say(piece)
                await streamed.until(f'"content": "{piece}"')
            server.model.say(None)
            assert (await streamed.done()).events[-1] == "[DONE]"

    asyncio.run(scene())


def test_an_event_is_one_line_to_every_client() -> None:
    """httpx, for one, takes U+2028 and others for ends of lines, which JSON leaves as they are."""
    said = "".join(map(chr, range(0x100))) + "\u2028\u2029é🙂"

    async def scene() -> Exchange:
        async with Server() as server:
            server.model.say(said, None)
            return await server.ask("one", stream=True).done()

    streamed = asyncio.run(scene())
    lines = [line for line in streamed.data.decode().splitlines() if line]
    assert len(lines) == len(streamed.events) and all(line.startswith("data: ") for line in lines)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed.events[:-1]) == said


@pytest.mark.parametrize("reasoning", ["", "It adds."])
@pytest.mark.parametrize(("said", "content"), [("", None), ("At once.", "At once.")])
def test_reasoning_and_calls_of_functions_are_told_as_such(said: str, content: str | None, reasoning: str) -> None:
    async def scene() -> tuple[Exchange, Exchange]:
        tool = {"type": "function", "function": {"name": "add"}}
        async with Server() as server:
            both = [server.ask("one", tools=[tool]), server.ask("two", tools=[tool], stream=True)]
            for _ in both:
                thought = f"<think>\n{reasoning}\n</think>\n\n" if reasoning else ""
                server.model.say(*(thought + said + '<call>{"name": "add", "arguments": {"a": 1}}</call>'), None)
            whole, streamed = [await exchange.done() for exchange in both]
            return whole, streamed

    whole, streamed = asyncio.run(scene())
    [choice] = whole.json["choices"]
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == content
    assert choice["message"].get("reasoning_content", "") == reasoning
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    choices = [event["choices"][0] for event in streamed.events[:-1]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == said
    assert "".join(choice["delta"].get("reasoning_content", "") for choice in choices) == reasoning
    *_, calling, last = choices
    [found] = calling["delta"]["tool_calls"]
    assert found.pop("id") and found == {"index": 0, **call}
    assert last == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_fails_one_request_alone(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with Server() as server:
            server.model.say("a", RuntimeError("hf_" + "s" * 34), "b", None)
            failed = await server.ask("one", stream=stream).done()
            told = failed.events[-1] if stream else failed.json
            assert failed.status == (200 if stream else 500)
            assert told["error"]["code"] == "model_error" and told["error"]["type"] == "server_error"
            assert "hf_" not in failed.data.decode()
            assert (await server.ask("two").done()).status == 200

    asyncio.run(scene())
    assert "RuntimeError" in caplog.text and "s" * 34 not in caplog.text


def test_what_a_log_shows_of_a_request_is_not_obeyed_by_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        async with Server() as server:
            server.model.say(RuntimeError("\x1b]0;title\x07\nerror: it is the server's own"))
            await server.ask("one").done()

    with guarded_streams():
        handlers, logging.root.handlers = logging.root.handlers, []  # as outside of pytest
        try:
            asyncio.run(scene())
        finally:
            logging.root.handlers = handlers
    log = capfd.readouterr().err
    assert r"\x1b]0;title\x07" in log and "\x1b" not in log and "\nerror:" not in log


def test_stopping_ends_every_answer_and_takes_no_other() -> None:
    async def scene() -> None:
        server = Server()
        streamed, waiting = server.ask("one", stream=True), server.ask("two")
        server.model.say("a")
        await streamed.until('"content": "a"')
        server.queue.stop()
        assert (await streamed.done()).events[-1]["error"]["code"] == "stopping"
        assert (await waiting.done()).status == 503
        await server.until_closed(0)
        assert (await server.ask("three").done()).json["error"]["code"] == "stopping"
        assert server.model.asked == ["one"]

    asyncio.run(scene())


def test_what_a_plugin_raises_of_a_run_is_an_error_of_the_server() -> None:
    async def scene() -> None:
        async with Server() as server:
            server.model.say(RunError("the tokenizer fails"))
            assert (await server.ask("one").done()).status == 500

    asyncio.run(scene())


def test_a_stream_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_READ_WITHIN", 0.05)
    closed = []

    async def parts() -> AsyncIterator[str]:
        yield "data: 1\n\n"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def scene() -> None:
        stream = wire.EventStream(parts(), lambda: closed.append(True))
        async with asyncio.timeout(5):
            await stream({"type": "http"}, asyncio.Queue[Any]().get, send)

    asyncio.run(scene())
    assert closed
