"""`toolkit serve` as a process, asked by OpenAI's own client."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.testing import tiny_model_folder
from openai import APIStatusError, BadRequestError, OpenAI

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


def generated(source: Path, prompt: str, *options: str) -> Any:
    command = ["generate", str(source), prompt, "--json", *options]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def test_openais_client_is_answered_as_generate_does(make_recipe: Any, tmp_path: Path) -> None:
    run = graftkit.run(make_recipe(export=["peft"]), out=tmp_path / "mine")
    drawn = ["--temperature", "2", "--seed", "3", "--max-new-tokens", "12"]
    expected = generated(run.folder, "say 3", *drawn)
    with serving(run.folder, "--queue", "0") as (process, url), OpenAI(base_url=url, api_key="-", max_retries=0) as client:
        [model] = client.models.list()
        assert model.id == "mine"
        asked: Any = {"model": "mine", "messages": [{"role": "user", "content": "say 3"}], "max_tokens": 12}
        asked |= {"temperature": 2, "seed": 3}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == expected["answer"]
        assert whole.usage and whole.usage.completion_tokens == expected["tokens"]
        with client.chat.completions.create(**asked, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert len(pieces) > 3 and "".join(pieces) == expected["answer"]
        text = client.completions.create(model="mine", prompt="say", max_tokens=3, seed=0).choices[0].text
        assert text == generated(run.folder, "say", "--plain", "--max-new-tokens", "3")["answer"]
        with pytest.raises(BadRequestError, match="one answer is made") as refused:
            client.chat.completions.create(**asked, n=2)
        assert refused.value.param == "n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_client_that_leaves_and_ctrl_c_end_answers_in_a_real_server(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "long", max_position_embeddings=1 << 20)
    with serving(model, "--queue", "0", "--max-new-tokens", str(1 << 19)) as (process, url):
        client = OpenAI(base_url=url, api_key="-", max_retries=0)
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
        client.close()
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


