"""A long prompt is laid out within limits, whatever its tokenizer does in one call."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgi_client import ask
from graftkit.cli import serve as serve_command
from graftkit.errors import RequestError
from graftkit.flow.answering.reload import reload
from graftkit.serve import prompt_process
from graftkit.serve.answers import AnswerQueue
from graftkit.serve.api_error import ApiError
from graftkit.serve.app import create_app
from graftkit.serve.limits import Limits
from graftkit.serve.prompt_process import lay_out_within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no process is forked elsewhere")

LONG = 10_000


def laid_out(work: Callable[[], Any], *, seconds: float = 10, unwanted: bool = False, characters: int = LONG) -> Any:
    return lay_out_within(seconds, lambda: unwanted)(characters, work)


def test_ids_and_errors_are_those_of_the_work() -> None:
    ids = [*range(300_000)]
    assert laid_out(lambda: ids) == ids and laid_out(list) == []
    assert laid_out(lambda: [os.getpid()]) != [os.getpid()]
    assert laid_out(lambda: [os.getpid()], characters=100) == [os.getpid()], "a short one is laid out at once"

    def refused() -> list[int]:
        raise RequestError("half a surrogate: \ud800", where="messages[0]", hint="Leave it out.")

    with pytest.raises(RequestError, match="half a surrogate") as told:
        laid_out(refused)
    assert (told.value.where, told.value.hint) == ("messages[0]", "Leave it out.")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        laid_out(lambda: [1 // 0])


def test_a_server_may_ignore_what_becomes_of_its_children() -> None:
    """The signal's handling is inherited from the program that started the server."""
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert laid_out(lambda: [3]) == [3]
    finally:
        signal.signal(signal.SIGCHLD, former)


def test_what_takes_too_long_or_is_unwanted_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, fork, started = time.monotonic(), prompt_process._fork, list[int]()

    def noted(work: Callable[[], list[int]], seconds: float) -> tuple[int, int]:
        process, reader = fork(work, seconds)
        started.append(process)
        return process, reader

    monkeypatch.setattr(prompt_process, "_fork", noted)
    for options, code in (({"seconds": 0.2}, "prompt_too_slow"), ({"unwanted": True}, "stopping")):
        with pytest.raises(ApiError) as told:
            laid_out(lambda: time.sleep(60), **options)  # type: ignore[arg-type]
        assert told.value.code == code
    assert time.monotonic() - begun < 10
    assert len(started) == 2
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_process, "MOST_MEMORY", 1 << 26)
    for work in (lambda: [bytearray(1 << 28)[0]], lambda: os.kill(os.getpid(), 9)):
        with pytest.raises(ApiError) as told:
            laid_out(work)
        assert told.value.code == "prompt_too_large" and "memory" in told.value.message


def test_a_prompt_process_holds_no_connection_of_the_server() -> None:
    reader, writer = os.pipe()
    try:
        held = laid_out(lambda: [int(file.name) for file in Path("/proc/self/fd").iterdir()])
        assert not {*held} & {reader, writer}
    finally:
        os.close(reader)
        os.close(writer)


def test_a_slow_tokenizer_holds_up_no_other_request(tiny_model: Path, tmp_path: Path) -> None:
    """`\\s+$` takes seconds for 20,000 spaces, and hours for two million."""
    folder = shutil.copytree(tiny_model, tmp_path / "slow")
    spec = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "|".join([r"\s+$"] * 20)}, "behavior": "Isolated", "invert": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spec["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    queue = AnswerQueue(reload(str(folder)))
    app = create_app(queue, "slow", limits=Limits(prompt_seconds=0.2))
    spaces = " " * 30_000 + "a"
    for path, asked in (("completions", {"prompt": spaces}), ("chat/completions", {"messages": said(spaces)})):
        refused = ask(app, "POST", f"/v1/{path}", asked)
        assert refused.status == 400 and refused.json["error"]["code"] == "prompt_too_slow"
        assert "white space" in refused.json["error"]["message"]
    assert ask(app, "POST", "/v1/chat/completions", {"messages": said("hello"), "max_tokens": 2}).status == 200
    queue.stop()


def said(content: str) -> Any:
    return [{"role": "user", "content": content}]


def test_the_command_ends_though_an_answer_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(serve_command.os, "_exit", ended.append)
    begun, goes_on = threading.Event(), threading.Event()

    def never(*_: Any) -> Any:
        begun.set()
        goes_on.wait(20)
        raise RequestError("it was stopped")

    async def scene() -> None:
        queue.ask(never)
        begun.wait(20)
        queue.stop()
        serve_command._end_answers(queue, 0.05, 7)
        assert ended == [7]
        goes_on.set()
        serve_command._end_answers(queue, 20, 8)
        assert ended == [7], "an answer that ends is waited for"

    queue = AnswerQueue(object())  # type: ignore[arg-type]
    asyncio.run(scene())
