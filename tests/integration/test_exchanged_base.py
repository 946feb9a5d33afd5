"""A base model whose files are exchanged while a command works with them, or after the run that was trained on them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gguf_models import write_model
from graftkit import run
from graftkit.cli.main import cli
from graftkit.errors import ExportError, ModelError
from graftkit.flow.add_export import add_export
from graftkit.flow.events import StageFinished, StageStarted
from graftkit.flow.exports.proof import prove
from integration.conftest import RecipeMaker
from safetensors.torch import load_file, save_file

CHANGED = "was changed or replaced after its header was read"


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "base"))


def exchange(folder: Path) -> None:
    """Puts other weights into the folder, of the same names, shapes and size, as a download of another version does."""
    path = folder / "model.safetensors"
    tensors = {name: tensor * 1.5 for name, tensor in load_file(path).items()}
    save_file(tensors, folder / "new.partial", metadata={"format": "pt"})
    (folder / "new.partial").rename(path)


def write_over(folder: Path) -> None:
    """Changes a few weights where they lie."""
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(64))


def say_more(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 500.0}))


def at(stage: str, act: Callable[[], object], *, end: bool = False) -> Callable[[Any], None]:
    """Returns what does something as a stage of a run begins, or ends."""

    def on_event(event: Any) -> None:
        if isinstance(event, StageFinished if end else StageStarted) and event.stage == stage:
            act()

    return on_event


@pytest.mark.parametrize(
    ("stage", "change"),
    [("corpus", exchange), ("corpus", say_more), ("base model", write_over), ("training", exchange)],
)
def test_what_is_exchanged_while_a_run_works_is_never_said_to_be_what_was_trained_on(
    base: Path, make_recipe: RecipeMaker, tmp_path: Path, stage: str, change: Callable[[Path], None]
) -> None:
    recipe = make_recipe(model=str(base), export=[{"use": "peft"}])
    with pytest.raises(ModelError, match=CHANGED) as caught:
        run(recipe, out=tmp_path / "run", on_event=at(stage, lambda: change(base), end=stage == "base model"))
    named = base / ("config.json" if change is say_more else "model.safetensors")
    assert caught.value.where == str(named) and "start again" in caught.value.hint
    assert not list(tmp_path.glob("run/exports/*"))


def test_no_export_of_a_finished_run_is_made_or_proved_on_another_base(
    base: Path, make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = run(make_recipe(model=str(base), export=["peft"]), out=tmp_path / "run").folder
    exchange(base)
    found = CliRunner().invoke(cli, ["verify", str(finished / "exports/peft")])
    assert isinstance(found.exception, ExportError)
    assert found.exception.message == "model.safetensors is not the file that the adapter was trained on"
    monkeypatch.setattr("graftkit.model.load.Loader.load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match="not the file that the adapter was trained on"):
        add_export(finished, "merged")


def test_a_run_that_was_stopped_goes_on_on_its_own_base_alone(
    base: Path, make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(model=str(base))
    with pytest.raises(ZeroDivisionError):
        run(recipe, out=tmp_path / "run", on_event=at("training", lambda: 1 / 0))
    exchange(base)
    monkeypatch.setattr("graftkit.model.load.Loader.load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match="not the file that the adapter was trained on"):
        run(recipe, out=tmp_path / "run", resume=True)


def test_what_llama_cpp_proves_an_adapter_on_is_what_was_trained_on(
    tiny_model: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Its program opens the base's own GGUF file by its name."""
    pytest.importorskip("xllamacpp")
    path = write_model(tmp_path / "base.gguf", tiny_model, "q8_0")
    folder = run(
        make_recipe(model=str(path), export=[{"use": "gguf-lora"}], quantizer="stored"), out=tmp_path / "run"
    ).folder
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(ExportError, match="not the file that the adapter was trained on"):
        prove(folder / "exports/gguf-lora", folder / "probes.safetensors")
