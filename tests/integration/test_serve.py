"""`toolkit serve` as a process, asked by OpenAI's own client."""

from __future__ import annotations

import http.client
import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.errors import RequestError
from graftkit.flow.state.cancel import CancelToken
from graftkit.testing import tiny_model_folder
from openai import APIStatusError, BadRequestError, OpenAI

DOCUMENT = Path(__file__).parents[2] / "docs/serve.md"

pytestmark = pytest.mark.usefixtures("none_ignored")


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts the command at a free port; yields the process and the API's address, once it answers."""
    command = [sys.executable, "-m", "graftkit", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            found = re.search(r" at (http://\S+/v1)\n", told)
            assert found, told + process.communicate()[1]
            yield process, found[1]
        finally:
            process.kill()


def client_of(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="-", max_retries=0, timeout=30)


def generated(source: Path, prompt: str, *options: str) -> Any:
    command = ["generate", str(source), prompt, "--json", *options]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def test_openais_client_is_answered_as_generate_does(
    make_recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = graftkit.run(make_recipe(), out=tmp_path / "mine")
    drawn = ["--temperature", "2", "--seed", "3", "--max-new-tokens", "12"]
    expected = generated(run.folder, "say 3", *drawn)
    with serving(run.folder, "--name", "quickstart") as (process, url), client_of(url) as client:
        [model] = client.models.list()
        assert model.id == "quickstart"
        asked: Any = {"model": "quickstart", "messages": [{"role": "user", "content": "say 3"}], "max_tokens": 12}
        asked |= {"temperature": 2, "seed": 3}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == expected["answer"]
        assert whole.usage and whole.usage.completion_tokens == expected["tokens"]
        with client.chat.completions.create(**asked, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert len(pieces) > 3 and "".join(pieces) == expected["answer"]
        text = client.completions.create(model="quickstart", prompt="say", max_tokens=3, seed=0).choices[0].text
        assert text == generated(run.folder, "say", "--plain", "--max-new-tokens", "3")["answer"]
        with pytest.raises(BadRequestError, match="one answer is made") as refused:
            client.chat.completions.create(**asked, n=2)
        assert refused.value.param == "n"
        [shown] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
        exec(shown.replace("http://127.0.0.1:8000/v1", url), {})  # the page's example
        assert capsys.readouterr().out
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_client_that_leaves_and_ctrl_c_end_answers_in_a_real_server(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "long", max_position_embeddings=1 << 20)
    with serving(model, "--queue", "0", "--max-new-tokens", str(1 << 19)) as (process, url), client_of(url) as client:
        asked: Any = {"model": "long", "messages": [{"role": "user", "content": "on and on"}], "stream": True}
        asked |= {"extra_body": {"repetition_penalty": 100}}
        first = client.chat.completions.create(**asked)
        assert next(iter(first)).choices[0].delta.role == "assistant"
        with pytest.raises(APIStatusError) as turned_away:
            client.chat.completions.create(**asked)
        assert turned_away.value.status_code == 503 and "retry-after" in turned_away.value.response.headers
        first.close()
        second = _as_soon_as_there_is_room(client, asked)
        process.send_signal(signal.SIGINT)
        with pytest.raises(Exception, match="stopping"):
            list(second)
        assert process.wait(20) == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])), 5)


def _as_soon_as_there_is_room(client: OpenAI, asked: Any) -> Any:
    until = time.monotonic() + 20
    while True:
        try:
            return client.chat.completions.create(**asked)
        except APIStatusError as error:
            assert error.status_code == 503 and time.monotonic() < until, "the place was never given back"
            time.sleep(0.05)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server in this process, whose clients have little time."""
    from graftkit.serve import server

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    monkeypatch.setattr(server, "_REQUEST_WITHIN", 0.3)
    bound, cancel, started = server.bind("127.0.0.1", 0), CancelToken(), threading.Event()
    thread = threading.Thread(target=server.serve, args=(app, bound, cancel), kwargs={"on_start": started.set})
    port = bound.getsockname()[1]
    thread.start()
    assert started.wait(20)
    yield port
    cancel.cancel("the test is over")
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_connection_without_a_request_is_closed(served: int, begun: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served), 10) as connection:
        connection.sendall(begun)
        assert connection.recv(100) == b"", "closed, without an answer"


def test_a_connection_may_be_used_again_in_time(served: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=10)
    for _ in range(4):
        time.sleep(0.1)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
    assert connection.sock is not None and connection.sock.recv(100) == b"", "closed once it was idle"
    connection.close()


@pytest.mark.parametrize("length", [{}, {"Content-Length": str(8 << 20)}])
def test_a_client_that_sends_much_for_nothing_reads_its_answer(served: int, length: dict[str, str]) -> None:
    """The connection was closed as soon as it was answered, which breaks the client's pipe."""
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=10)
    body = (bytes(1 << 20) for _ in range(8))
    connection.request("POST", "/", body, {"Connection": "close", **length}, encode_chunked=not length)
    assert connection.getresponse().read() == b"ok"
    connection.close()


def test_a_request_of_two_lengths_is_refused_and_nothing_after_it_read(served: int) -> None:
    """A proxy that goes by the other length would take the rest for another client's request."""
    with socket.create_connection(("127.0.0.1", served), 10) as connection:
        lengths = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        answer = b""
        while part := connection.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1


def test_connections_and_the_lines_that_they_write_are_bounded(
    served: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from graftkit.serve import server

    monkeypatch.setattr(server, "_MOST_HELD", 5)
    opened = [socket.create_connection(("127.0.0.1", served), 10) for _ in range(15)]
    for connection in opened[5:]:
        with connection:
            assert connection.recv(100) == b"", "closed at once"
    for connection in opened[:5]:
        connection.sendall(b"nonsense\r\n\r\n")
        with connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert len(caplog.records) == 2, caplog.text
    monkeypatch.setattr(server, "_TOLD_AGAIN_AFTER", 0)
    with socket.create_connection(("127.0.0.1", served), 10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert caplog.records[-1].getMessage() == "Invalid HTTP request received. (4 more since this was last told)"


def test_few_different_warnings_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftkit.serve import server

    monkeypatch.setattr(server, "_MOST_TOLD", 5)
    once = server._Once()
    for number in range(12):
        assert once.filter(logging.LogRecord("", 30, "", 0, f"warning {number}", None, None))
        assert not once.filter(logging.LogRecord("", 30, "", 0, f"warning {number}", None, None))
    assert len(once._told) <= 5 and len(once._kept) <= 5


def test_a_stopped_server_waits_for_no_body(caplog: pytest.LogCaptureFixture) -> None:
    from graftkit.serve import server

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while (await receive())["type"] != "http.disconnect":
            asked.release()

    asked, started = threading.Semaphore(0), threading.Event()
    bound, cancel = server.bind("127.0.0.1", 0), CancelToken()
    port = bound.getsockname()[1]
    thread = threading.Thread(target=server.serve, args=(app, bound, cancel), kwargs={"on_start": started.set})
    thread.start()
    assert started.wait(20)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert asked.acquire(timeout=10)
        begun = time.monotonic()
        cancel.cancel("the test is over")
        thread.join(20)
    assert not thread.is_alive() and time.monotonic() - begun < server._STOP_WITHIN - 1
    assert not caplog.records


SLOW = """
import asyncio, sys
from graftkit.cli.signals import cancel_on_signals
from graftkit.serve.server import bind, serve

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"on and on", "more_body": True})
    await asyncio.sleep(60)

bound = bind("127.0.0.1", 0)
try:
    with cancel_on_signals(silent=True) as cancel:
        serve(app, bound, cancel, on_start=lambda: print(bound.getsockname()[1], flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_second_ctrl_c_ends_a_server_at_once_and_without_a_traceback() -> None:
    command = [sys.executable, "-c", SLOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), 10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130 and time.monotonic() - begun < 4
        assert process.stderr.read() == ""


def refused(*arguments: str | Path, command: str = "serve") -> RequestError:
    done = CliRunner().invoke(cli, [command, *map(str, arguments)])
    assert isinstance(done.exception, RequestError), done.output + repr(done.exception)
    return done.exception


def test_what_generate_refuses_is_refused_alike(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(tiny_model, tmp_path / "labels")
    config = json.loads((tmp_path / "labels/config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (tmp_path / "labels/config.json").write_text(json.dumps(config))
    for name in ("empty", "missing"):
        assert str(refused(tmp_path / name, "--port", "0")) == str(refused(tmp_path / name, "x", command="generate"))
    told = refused(tmp_path / "labels", "--port", "0")  # of which `generate` tells labels
    assert "only language models write answers" in str(told)


def test_a_server_that_others_reach_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = refused(tmp_path, "--host", "0.0.0.0", "--port", "0")
    assert "other machines reach this address" in told.message and "GRAFTKIT_API_KEY" in told.hint
    for key in ("", " ", "two\nlines", "sécret", "key "):
        monkeypatch.setenv("GRAFTKIT_API_KEY", key)
        assert "it is set, but holds no key" in refused(tmp_path, "--port", "0").message
    monkeypatch.setenv("GRAFTKIT_API_KEY", "secret")
    assert "reach" not in str(refused(tmp_path, "--host", "0.0.0.0", "--port", "0")), "the empty folder is refused"


def test_addresses_and_origins_that_are_none_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refused(tmp_path, "--port", str(port))
        assert "can't be taken" in told.message and told.where == f"127.0.0.1:{port}"
    assert "can't be taken" in refused(tmp_path, "--host", "host.invalid").message
    paths = "http://a/b", "http://localhost:3000/", "http://x?y", "http://x#y"
    hosts = (
        "http://",
        "http://a b",
        "http://u@x",
        "http://*.x",
        "http://LOCALHOST:3000",
        "http://é.example",
        "http://x\n",
    )
    ports = "http://x:", "http://x:0", "http://x:99999", "http://x:1:2", "http://x:80", "https://x:443"
    for origin in ("localhost:3000", "file://x", "null", *paths, *hosts, *ports):
        assert "is no origin" in refused(tmp_path, "--allow-origin", origin).message


def test_a_missing_extra_is_named_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftkit.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    told = refused(tmp_path)
    assert told.message == "starlette and uvicorn, which serve requests, are not installed"
    assert told.hint == "pip install 'graftkit[serve]'"
