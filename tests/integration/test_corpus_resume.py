"""A run that is killed while it encodes goes on with the record where it stood, as if it had never stopped."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graftkit
import pytest
from graftkit.errors import Cancelled
from graftkit.flow.events import Event, Notice, Progress, StageFinished
from graftkit.flow.preparation import corpus as corpus_module

KILLED = """
import json, os, signal, sys
import graftkit
from graftkit.corpus import tokenize
from graftkit.flow.preparation import corpus
from graftkit.interfaces import samples
from graftkit.store.token_writer import TokenWriter

corpus._CHECKPOINT, tokenize._CHARACTERS, tokenize._ROWS, tokenize._STRETCH, samples.LONG_TEXT = 40, 200, 2, 100, 500
whole, calls = TokenWriter.append, []

def append(self, records):
    whole(self, records)
    calls.append(1)
    if len(calls) == int(sys.argv[3]):
        for file in self._files.values():
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

TokenWriter.append = append
graftkit.run(json.loads(sys.argv[1]), out=sys.argv[2], resume=True)
"""


@pytest.fixture(autouse=True)
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftkit.corpus.tokenize._STRETCH", 100)
    monkeypatch.setattr("graftkit.interfaces.samples.LONG_TEXT", 500)


@pytest.fixture
def recipe(make_recipe: Any, tmp_path: Path) -> dict[str, Any]:
    draw = random.Random(0)
    words = ["turn", " the lamp", " on", "\n", "\n\n", " 🎉", "12", " <|im_end|>"]

    def text(count: int) -> str:
        return "x" + "".join(draw.choices(words, k=count))

    texts = [{"text": text(30)} for _ in range(30)]
    answers = [{"prompt": text(3), "completion": text(3)} for _ in range(20)]
    for name, records in (("texts", texts), ("answers", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "book.txt").write_text(text(800))
    files = [str(tmp_path / name) for name in ("book.txt", "texts.jsonl", "answers.jsonl")]
    found: dict[str, Any] = make_recipe(data={"train": files, "holdout": 0.2, "max_length": 64})
    return found


def tokens_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "tokens").iterdir()}


def run_until_encoded(recipe: dict[str, Any], out: Path) -> list[str]:
    """Runs up to the end of the corpus stage; returns what was told."""
    cancel, notices = graftkit.CancelToken(), []

    def on_event(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)
        if isinstance(event, StageFinished) and event.stage == "corpus":
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, resume=True, on_event=on_event, cancel=cancel)
    return notices


def kill_while_encoding(recipe: dict[str, Any], out: Path, calls: int) -> None:
    command = [sys.executable, "-c", KILLED, json.dumps(recipe), str(out), str(calls)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not (out / "tokens").exists() and (out / ".tokens.partial").is_dir()


@pytest.mark.parametrize("calls", [1, 6, 40], ids=["at the start", "in the long text", "in the records"])
def test_a_run_killed_while_it_encodes_goes_on_and_gives_the_same_tokens(
    recipe: dict[str, Any], tmp_path: Path, calls: int
) -> None:
    assert not any("going on" in told for told in run_until_encoded(recipe, tmp_path / "never"))
    kill_while_encoding(recipe, tmp_path / "killed", calls)
    told = run_until_encoded(recipe, tmp_path / "killed")
    assert tokens_of(tmp_path / "killed") == tokens_of(tmp_path / "never")
    assert any("going on after record" in message for message in told) == (calls == 40)
    assert not (tmp_path / "killed" / ".tokens.partial").exists()


def test_a_long_text_goes_on_with_the_stretch_where_it_stood(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_while_encoding(recipe, tmp_path / "killed", 6)
    starts, whole = [], corpus_module.tokenize

    def tokenize(encoder: Any, records: Any, position: Any) -> Any:
        starts.append(position)
        return whole(encoder, records, position)

    monkeypatch.setattr(corpus_module, "tokenize", tokenize)
    run_until_encoded(recipe, tmp_path / "killed")
    assert starts[0].records == 0 and starts[0].stretches > 2 and starts[0].begun


def test_a_run_that_is_stopped_while_it_encodes_loses_nothing(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.corpus.tokenize._CHARACTERS", 200)
    run_until_encoded(recipe, tmp_path / "never")
    cancel = graftkit.CancelToken()

    def stop_at_row_20(event: Event) -> None:
        if isinstance(event, Progress) and event.done >= 20:
            cancel.cancel("enough")

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=tmp_path / "stopped", on_event=stop_at_row_20, cancel=cancel)
    [told] = [message for message in run_until_encoded(recipe, tmp_path / "stopped") if "going on" in message]
    assert int(told.rpartition(" ")[2]) >= 20
    assert tokens_of(tmp_path / "stopped") == tokens_of(tmp_path / "never")


@pytest.mark.parametrize(("free", "tells"), [(10_000, 1), (1 << 40, 0)])
def test_a_disk_that_the_tokens_are_going_to_fill_is_told_ahead(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, tells: int
) -> None:
    monkeypatch.setattr("graftkit.corpus.tokenize._CHARACTERS", 200)
    monkeypatch.setattr(corpus_module, "_CHECKPOINT", 40)
    monkeypatch.setattr(corpus_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    told = [message for message in run_until_encoded(recipe, tmp_path / "run") if "the disk may be full" in message]
    assert len(told) == tells and all("0.0 GB are free in" in message for message in told)


def test_tokens_that_were_finished_are_not_made_again(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until_encoded(recipe, tmp_path / "run")
    before = tokens_of(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "tokenize", lambda *arguments: pytest.fail("encoded again"))
        run_until_encoded(recipe, tmp_path / "run")
    damaged = tmp_path / "run" / "tokens" / "train.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"\x07" * 9)
    run_until_encoded(recipe, tmp_path / "run")
    assert tokens_of(tmp_path / "run") == before


def test_tokens_of_another_tokenizer_are_not_used(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_while_encoding(recipe, tmp_path / "run", 40)
    with monkeypatch.context() as patch:
        patch.setattr("graftkit.corpus.encode.Encoder.fingerprint", "another")
        assert not any("going on" in told for told in run_until_encoded(recipe, tmp_path / "run"))
    never = tmp_path / "never"
    run_until_encoded(recipe, tmp_path / "run")
    run_until_encoded(recipe, never)
    assert tokens_of(tmp_path / "run") == tokens_of(never)


def test_the_manifest_names_the_encoder(recipe: dict[str, Any], tmp_path: Path) -> None:
    run_until_encoded(recipe, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["encoder"] == "tokenizers"
