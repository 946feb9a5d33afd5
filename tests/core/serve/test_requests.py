"""What an endpoint refuses, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from asgi_client import Exchange, ask
from graftkit.errors import RequestError
from graftkit.serve.answers import AnswerQueue
from graftkit.serve.app import create_app
from graftkit.serve.limits import Limits
from graftkit.serve.server import bind

CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


class Unasked:
    """A model that must not be asked."""

    generation: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of the model is used")


@pytest.fixture(scope="module")
def queue() -> Iterator[AnswerQueue]:
    queue = AnswerQueue(Unasked())  # type: ignore[arg-type]
    yield queue
    queue.stop()


@pytest.fixture(scope="module")
def app(queue: AnswerQueue) -> Any:
    return create_app(queue, "org/tiny", limits=Limits(body_bytes=10_000, body_seconds=0.1, json_values=3_000))


def error(found: Exchange, status: int) -> Any:
    assert found.status == status, found.data
    assert found.headers["content-type"] == "application/json"
    told = found.json["error"]
    assert set(told) == {"message", "type", "param", "code"} and told["message"] and told["code"]
    return told


MESSAGE = {"role": "user", "content": "hello"}
FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_value"),
        ({"n": True}, "n", "unsupported_value"),
        ({"logprobs": True}, "logprobs", "unsupported_value"),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_value"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "unsupported_value"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_value"),
        ({"presence_penalty": -1}, "presence_penalty", "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_value"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_value"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "unsupported_value"),
        ({"functions": []}, "functions", "unsupported_value"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_value"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_value"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 101}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 2.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": 5000}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"seed": 1 << 63}, "seed", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", 3]}, "stop[1]", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": 3}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"usage": 1}}, "stream_options.usage", "unknown_parameter"),
        ({"model": "gpt-4o"}, "model", "model_not_found"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hello"}, "messages", "invalid_type"),
        ({"messages": [MESSAGE, "hello"]}, "messages[1]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{**MESSAGE, "tool_calls": []}]}, "messages[0].tool_calls", "unknown_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]}]},
            "messages[0].tool_calls[0].function",
            "missing_required_parameter",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [FUNCTION] * 129}, "tools", "invalid_value"),
    ],
)
def test_what_would_be_ignored_or_is_wrong_is_refused_by_name(
    app: Any, changes: dict[str, Any], param: str, code: str
) -> None:
    told = error(ask(app, "POST", CHAT, {**HELLO, **changes}), 404 if param == "model" else 400)
    assert (told["param"], told["code"], told["type"]) == (param, code, "invalid_request_error")
    assert param in told["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_a_continuation_would_ignore_is_refused_by_name(app: Any, changes: dict[str, Any], param: str) -> None:
    assert error(ask(app, "POST", TEXTS, {"prompt": "a", **changes}), 400)["param"] == param


def test_a_misspelt_parameter_is_told_the_nearest_known_one(app: Any) -> None:
    assert "Did you mean 'temperature'?" in error(ask(app, "POST", CHAT, {**HELLO, "temprature": 1}), 400)["message"]


def _said(text: str) -> bytes:
    return b'{"messages": [{"role": "user", "content": ' + text.encode() + b"}]}"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b'"hello"', "the body is a string, no object"),
        (b"[" * 2_500, "nested"),
        (_said('[{"a":' * 500 + "1" + "}]" * 500), "nested"),
        (b'{"temperature": NaN}', "NaN is no JSON number"),
        (b'{"temperature": -Infinity}', "-Infinity is no JSON number"),
        (b'{"messages": [], "temperature": 1, "temperature": 2}', "a key stands in it twice"),
        (b'{"max_tokens": ' + b"9" * 5_000 + b"}", "a number too long to read"),
        (_said(r'"\ud83d"'), "lone surrogate"),
        (b'{"\\ud83d": 1}', "lone surrogate"),
        (b"[" + b"0," * 4_000 + b"0]", "more than 3,000 values"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', "temperature is Infinity"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": ' + b"9" * 500 + b"}", "max_tokens is 999"),
    ],
)
def test_hostile_bodies_are_refused_before_the_model_is_asked(app: Any, body: bytes, reason: str) -> None:
    assert reason in error(ask(app, "POST", CHAT, body), 400)["message"]


def test_what_a_refusal_shows_of_a_body_is_short_and_escaped(app: Any) -> None:
    told = ask(app, "POST", CHAT, {**HELLO, "\x1b]0;title\x07" + "k" * 5_000: 1})
    assert len(told.data) < 1_000 and b"\x1b" not in told.data
    assert len(ask(app, "POST", CHAT, {**HELLO, "n": "9" * 5_000}).data) < 1_000
    assert len(ask(app, "POST", CHAT, {**HELLO, "model": "9" * 5_000}).data) < 1_000


def test_a_body_has_bounds_in_size_and_time(app: Any) -> None:
    for headers in ({}, {"content-length": "10001"}):
        found = ask(app, "POST", CHAT, _said('"' + "x" * 10_000 + '"'), headers)
        assert error(found, 413)["code"] == "request_too_large" and found.headers["connection"] == "close"

    async def stalls() -> Exchange:
        return await Exchange(app, "POST", CHAT, b'{"messages"', ends=False).done()

    assert error(asyncio.run(stalls()), 408)["code"] == "timeout"


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        ["application/json", "text/plain"],
    ],
)
def test_only_json_is_read_so_that_no_page_may_send_a_form(app: Any, kind: Any) -> None:
    assert error(ask(app, "POST", CHAT, HELLO, {"content-type": kind}), 415)["code"] == "unsupported_media_type"


def test_a_compressed_body_is_not_read(app: Any) -> None:
    for encoding in ("gzip", ["identity", "gzip"], "identity, gzip"):
        assert error(ask(app, "POST", CHAT, HELLO, {"content-encoding": encoding}), 415)


def test_models_and_paths(app: Any) -> None:
    [model] = ask(app, "GET", "/v1/models").json["data"]
    assert (model["id"], model["object"]) == ("org/tiny", "model")
    assert ask(app, "GET", "/v1/models/org/tiny").json == model
    assert ask(app, "GET", "/health").json == {"status": "ok"}
    assert error(ask(app, "GET", "/v1/models/other"), 404)["code"] == "model_not_found"
    assert error(ask(app, "GET", "/v1/responses"), 404)["code"] == "unknown_url"
    wrong = ask(app, "GET", CHAT)
    assert error(wrong, 405)["code"] == "unknown_url" and wrong.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST")),
        *((host, 403) for host in (None, "", "evil.example", "evil.example:8000", "localhost.evil.example")),
        *((host, 403) for host in ("localhost:8000.evil.example", "localhost@evil.example", "::1")),
    ],
)
def test_a_request_for_another_name_is_refused(app: Any, host: str | None, status: int) -> None:
    found = ask(app, "GET", "/v1/models", headers={"host": host})
    assert found.status == status
    if status != 200:
        assert error(found, 403)["code"] == "unknown_host"


def test_no_origin_is_allowed_unless_it_was_named(app: Any, queue: AnswerQueue) -> None:
    preflight = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,authorization",
    }
    closed = ask(app, "OPTIONS", CHAT, headers=preflight)
    assert closed.status == 405 and not any(name.startswith("access-control") for name in closed.headers)
    open_ = create_app(queue, "tiny", origins=["http://localhost:3000"], api_key="secret")
    allowed = ask(open_, "OPTIONS", CHAT, headers=preflight)
    assert allowed.status == 200 and allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    private = ask(open_, "OPTIONS", CHAT, headers={**preflight, "access-control-request-private-network": "true"})
    assert private.status == 200 and private.headers["access-control-allow-private-network"] == "true"
    refused = ask(open_, "GET", "/v1/models", headers={"origin": "http://localhost:3000"})
    assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "http://localhost:3000"
    other = ask(open_, "OPTIONS", CHAT, headers={**preflight, "origin": "http://evil.example"})
    assert other.status == 400 and "access-control-allow-origin" not in other.headers


def test_a_key_has_to_be_shown(queue: AnswerQueue) -> None:
    app = create_app(queue, "tiny", hosts=None, api_key="secret")
    anywhere = {"host": "example.org"}
    wrong = (
        None,
        "",
        "secret",
        "Bearer",
        "Bearer secre",
        "Bearer secret2",
        "Bearer s\u00e9cret",
        "\u2035 secret",
        "Bearer  secret",
    )
    for given in (*wrong, ["Bearer secret", "Bearer other"], ["Bearer secret"] * 2, "Bearer secret, Bearer secret"):
        found = ask(app, "GET", "/v1/models", headers={**anywhere, "authorization": given})
        assert error(found, 401)["code"] == "invalid_api_key" and found.headers["www-authenticate"] == "Bearer"
    for given in ("Bearer secret", "bearer secret"):
        assert ask(app, "GET", "/v1/models", headers={**anywhere, "authorization": given}).status == 200
    assert ask(app, "POST", CHAT, b"[" * 100_000, headers=anywhere).status == 401, "before its body is read"
    assert ask(app, "GET", "/health", headers=anywhere).status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("queue", 5), ("name", None), ("limits", 5), ("hosts", "localhost"), ("hosts", [5])),
        *(("origins", "http://x"), ("api_key", ""), ("api_key", b"secret"), ("waiting", -1), ("waiting", "8")),
        *(("host", 5), ("port", "80"), ("port", 70_000)),
    ],
)
def test_a_program_that_serves_is_told_of_a_wrong_argument(queue: AnswerQueue, name: str, value: Any) -> None:
    entry: Any = partial(create_app, **{"queue": queue, "name": "tiny"})
    if name in ("host", "port"):
        entry = partial(bind, **{"host": "127.0.0.1", "port": 0})
    if name == "waiting":
        entry = partial(AnswerQueue, Unasked())
    with pytest.raises(RequestError, match=rf"^{name}(\[0\])?: "):
        entry(**{name: value})


def test_parameters_without_influence_on_an_answer_are_taken(app: Any) -> None:
    from graftkit.serve.requests import chat_request, completion_request

    usual = {"n": 1, "user": "me", "store": False, "metadata": {}, "logprobs": False, "presence_penalty": 0, "seed": 1}
    asked = chat_request({**HELLO, **usual, "response_format": {"type": "text"}, "model": "tiny"}, "tiny", Limits())
    assert asked.options.seed == 1 and asked.options.max_new_tokens == 4096 and asked.tools is None
    either = [chat_request({**HELLO, key: 7}, "tiny", Limits()) for key in ("max_tokens", "max_completion_tokens")]
    assert [one.options.max_new_tokens for one in either] == [7, 7]
    assert completion_request({"prompt": "a", "best_of": 1, "echo": False}, "tiny", Limits()).prompt == "a"
