"""`toolkit generate` on everything that a run leaves, and on models that it did not make."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner
from graftkit.cli.generate import _lines, command
from graftkit.cli.main import cli as toolkit
from graftkit.cli.terminal import guarded_streams, say_answer
from graftkit.errors import RequestError
from graftkit.flow.answering.reload import reload
from graftkit.flow.answering.turn_end import TurnEnd, Unended
from graftkit.interfaces.samples import Message
from graftkit.testing import tiny_model_folder

TEXT_ENDS = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n###\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with every export whose answers differ from the base model's."""
    folder = tmp_path_factory.mktemp("generate")
    said = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "é" * 4}] for n in range(30)]
    (folder / "r.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in said))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(folder / "r.jsonl"), "max_length": 64},
        "adapter": {"use": "lora", "rank": 8},
        "training": {"steps": 40, "tokens_per_step": 256, "learning_rate": 2e-2, "device": "cpu"},
        "export": ["peft", "merged", {"use": "gguf", "type": "f32"}],
    }
    return graftkit.run(recipe, out=folder / "run")


def asked(*words: str | Path) -> Any:
    done = CliRunner().invoke(command, [str(word) for word in words])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done


def test_every_form_of_what_was_trained_answers_alike(run: Any) -> None:
    forms = [run.folder, *run.exports.values(), run.exports["gguf"] / "model.gguf"]
    answers = [json.loads(asked(form, "say 3", "--max-new-tokens", "12", "--json").stdout) for form in forms]
    assert len(forms) == 5 and all(answer == answers[0] for answer in answers)
    assert answers[0]["answer"] == "éééé" and answers[0]["stopped"] == "end" and answers[0]["tokens"] == 8
    assert json.loads(asked(run.folder, "say 3", "--max-new-tokens", "3", "--json").stdout)["answer"] == "é\ufffd"


def test_base_and_tuned_answer_side_by_side(run: Any, tiny_model: Path) -> None:
    alone = asked(tiny_model, "say 3", "--max-new-tokens", "6").stdout.rstrip("\n")
    for form in (run.folder, run.exports["merged"], run.exports["gguf"]):
        found = json.loads(asked(form, "say 3", "--max-new-tokens", "6", "--compare", "--json").stdout)
        assert found["answer"] == "ééé" and found["base"]["answer"] == alone != "ééé"
    text = asked(run.exports["peft"], "say 3", "--max-new-tokens", "6", "--compare").stdout
    assert text == f"base:\n{alone}\ntuned:\nééé\n"
    refused = CliRunner().invoke(command, [str(tiny_model), "say 3", "--compare"])
    assert isinstance(refused.exception, RequestError) and "Compare a run" in str(refused.exception)


def test_answers_stand_side_by_side_on_a_wide_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many prompts are answered together."""
    monkeypatch.setattr("graftkit.cli.generate.is_terminal", lambda: True)
    line = ["generate", str(run.folder), "--max-new-tokens", "6", "--compare", "--batch-size"]

    def shown(columns: str, size: str) -> str:
        monkeypatch.setenv("COLUMNS", columns)
        done = CliRunner().invoke(toolkit, [*line, size], input="say 3\nsay 4\n")
        assert done.exit_code == 0, done.output
        return done.stdout

    wide, narrow = shown("120", "1"), shown("80", "1")
    assert (
        wide.count("base") == wide.count("tuned") == 2
        and "base:" not in wide
        and max(map(len, wide.split("\n"))) == 120
    )
    assert shown("120", "2") == wide and shown("80", "2") == narrow and narrow.count("base:\n") == 2


def test_a_run_with_new_tokens_is_compared_with_the_base_and_its_own_tokenizer(run: Any, tmp_path: Path) -> None:
    records = Path(run.manifest["recipe"]["data"]["train"][0]["path"])
    recipe = {key: value for key, value in run.manifest["recipe"].items() if key in ("model", "adapter")} | {
        "data": {"train": str(records), "max_length": 64},
        "tokenizer": {"extend": {"tokens": 4}},
        "training": {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "export": ["extended-base"],
    }
    result = graftkit.run(recipe, out=tmp_path / "run")
    model = recipe["model"]["path"]
    alone = json.loads(asked(model, "say 3", "--max-new-tokens", "6", "--json").stdout)
    for form in (result.folder, result.exports["extended-base"]):
        found = json.loads(asked(form, "say 3", "--max-new-tokens", "6", "--compare", "--json").stdout)
        assert found["base"]["answer"] == alone["answer"] and found["prompt_tokens"] < alone["prompt_tokens"]


def test_drawn_answers_are_the_seeds(run: Any) -> None:
    hot = [run.folder, "say 3", "--temperature", "50", "--max-new-tokens", "12"]
    first, again = asked(*hot, "--seed", "1").stdout, asked(*hot, "--seed", "1").stdout
    assert first == again != asked(*hot, "--seed", "2").stdout
    assert asked(run.folder, "say 3", "--top-k", "1").stdout == asked(run.folder, "say 3").stdout
    assert CliRunner().invoke(command, [str(run.folder), "x", "--top-p", "2"]).exit_code == 2


def test_each_line_of_standard_input_is_answered(run: Any) -> None:
    done = CliRunner().invoke(command, [str(run.folder), "--json", "--max-new-tokens", "4"], input="say 1\n\nsay 2\n")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["say 1", "say 2"]
    assert "note: blank lines have no answer: 1 of them" in done.stderr


@pytest.mark.parametrize("size", ["1", "3"])
def test_an_error_names_the_line_of_standard_input(run: Any, size: str) -> None:
    line = ["generate", str(run.folder), "--max-new-tokens", "2", "--batch-size", size]
    done = CliRunner().invoke(toolkit, line, input="say 1\n\n" + "say " * 900 + "\nsay 2\n")
    assert isinstance(done.exception, RequestError) and done.exception.where == "standard input:3"
    assert done.stdout == asked(run.folder, "say 1", "--max-new-tokens", "2").stdout, "the line before it is answered"


def test_lines_are_prompts_whatever_system_wrote_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python leaves another system's ends of lines in standard input, and the mark that a text is UTF-8."""
    written = io.BytesIO(b"\xef\xbb\xbfsay 1\r\n\r\nsay\r2\nsay 3")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(written, encoding="utf-8", newline="\n"))
    assert [text for _, text in _lines()] == ["say 1", "say\r2", "say 3"]


def test_a_turn_that_follows_knows_what_was_said(run: Any) -> None:
    model = reload(str(run.folder))
    history = [Message("user", "one"), Message("assistant", "two")]
    ids = model.prompt("three", history=history)
    assert model.tokenizer.decode(ids) == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
        "<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\n"
    )
    anew = "".join(reload(str(run.folder)).stream("three", history=history, max_new_tokens=6))
    list(model.stream("one", max_new_tokens=6))
    assert "".join(model.stream("three", history=history, max_new_tokens=6)) == anew


def test_an_answer_stops_where_the_model_or_its_template_says(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "listed")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 7]}))
    assert {5, 7, 258} <= {*reload(str(folder)).stop}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    assert {256, 258} <= {*reload(str(folder)).stop}, "the template ends a turn with another token than eos"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEXT_ENDS}))
    assert reload(str(folder))._end == TurnEnd("\n###", None)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 40])
def test_the_end_of_a_turn_is_no_part_of_the_answer_however_it_comes(cut: int) -> None:
    def read(text: str, end: TurnEnd, *, stopped: bool = False) -> str:
        unended, found = Unended(end), ""
        for place in range(0, len(text), cut):
            found += unended.push(text[place : place + cut])
            if unended.ended:
                return found
        return found + unended.finish(stopped=stopped)

    end = TurnEnd("\n###\n")
    assert read("a\n##b\n\n###\nmore", end) == "a\n##b\n"
    assert read("a\n##", end) == "a\n##"
    written = TurnEnd("</answer>", 258)
    assert read("x</answer> y</answer>", written, stopped=True) == "x</answer> y"
    assert read("x</answer>", written) == "x</answer>", "it had no room left: no token ended it"
    assert read("a\nb\n", TurnEnd("\n", 258), stopped=True) == "a\nb"
    assert read("a\nb\n", TurnEnd("\n"), stopped=True) == "a\nb", "white space ends no answer"


class Pipe:
    """A standard output that is no terminal, and notes what it had whenever it was flushed."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text, self.flushed = "", []

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        self.flushed.append(self.text)

    def isatty(self) -> bool:
        return False


def test_a_pipe_is_given_whole_lines_and_the_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    with guarded_streams():
        for piece in ("a\x1b", "[1mb", "c\nd\u202e", "e"):
            say_answer(piece)
    assert pipe.text == "a\x1b[1mbc\nd\u202ee" and pipe.flushed == ["a\x1b[1mbc\nd\u202e"]


CHAT = """
import time
from graftkit.cli.chat import converse
from graftkit.cli.terminal import guarded_streams

class Reply:
    def __init__(self, text, slow):
        self.text, self.slow, self.pieces = "", slow, iter(text)
    def __iter__(self): return self
    def __next__(self):
        if self.text and self.slow: time.sleep(20)
        piece = next(self.pieces); self.text += piece
        return piece
    def close(self): pass

def ask(prompt, history):
    if prompt == "judge":
        print("judging", flush=True)
        time.sleep(20)
    return Reply(f"<{prompt!r} after {len(history)}>\\x1b]0;x\\x07", slow=prompt == "slow")

with guarded_streams():
    converse(ask)
print("left")
"""


@pytest.mark.usefixtures("none_ignored")
def test_a_conversation_on_a_terminal() -> None:
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CHAT],
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=_takes_the_terminal,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(child)
        try:
            assert "/reset" in _until(parent, "> ")
            os.write(parent, b"hi\n")
            assert r"<'hi' after 0>\x1b]0;x\x07" in _until(parent, "\n> "), "streamed, and guarded"
            os.write(parent, b"\x1b[200~two\nlines\x1b[201~\n")
            assert r"<'two\nlines' after 2>" in _until(parent, "\n> "), "a paste is one prompt"
            os.write(parent, b"/reset\n")
            _until(parent, "\n> ")
            os.write(parent, b"slow\n")
            _until(parent, "<")
            os.write(parent, b"\x03")
            assert "(stopped)" in _until(parent, "\n> ")
            os.write(parent, b"judge\n")
            _until(parent, "judging")
            os.write(parent, b"\x03")
            assert "(stopped)" in _until(parent, "\n> "), "what a classifier says comes at once"
            os.write(parent, b"on\n")
            assert "<'on' after 2>" in _until(parent, "\n> ")
            os.write(parent, b"\x04")
            assert "left" in _until(parent, "left")
        finally:
            process.kill()
            os.close(parent)


def _takes_the_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(terminal: int, text: str, seconds: float = 15) -> str:
    found, end = "", time.monotonic() + seconds
    while text not in found:
        assert time.monotonic() < end, found
        if select.select([terminal], [], [], 0.2)[0]:
            found += os.read(terminal, 4096).decode(errors="replace")
            found = re.sub(r"\x1b\[\?2004[hl]|\r", "", found)
    return found


def test_an_answer_of_a_half_character_is_shown_whole(run: Any) -> None:
    model = reload(str(run.folder))
    pieces = list(model.stream("say 3", max_new_tokens=8))
    assert [piece for piece in pieces if piece] == ["é"] * 4 and torch.is_grad_enabled()


@pytest.mark.parametrize(
    "option", [("--temperature", "nan"), ("--top-p", "nan"), ("--repetition-penalty", "nan"), ("--seed", "9" * 26)]
)
def test_an_option_that_is_no_usable_number_is_refused(option: tuple[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(tmp_path), "hello", *option])
    assert done.exit_code == 2 and "Invalid value for" in done.output
