"""What a plugin's tokenizer saves is looked at before anything is encoded with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from graftkit.errors import PluginCallError
from graftkit.flow.planning.saved_tokenizer import check_saved
from graftkit.host.records import PluginRecord


class Watched(SimpleNamespace):
    """What another plugin has made."""

    _graftkit_plugin = PluginRecord("p", "acme", "1", "p")


def made(save: Callable[[Path], Any], kind: type = Watched) -> Any:
    return kind(fingerprint="f", chat_template="t", save=save)


def load(folder: Path) -> Any:
    fingerprint, template = (folder / "own").read_text().split("|")
    return SimpleNamespace(fingerprint=fingerprint, chat_template=template)


BACKEND = cast(Any, SimpleNamespace(load=load))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("f|t", ""),
        ("garbage", "has written what can't be loaded again: ValueError: "),
        ("g|t", "has written a tokenizer with another fingerprint than its own"),
        ("f|", "has written a tokenizer with another chat template than its own"),
    ],
)
def test_what_a_plugins_tokenizer_saves_is_that_tokenizer(written: str, message: str) -> None:
    """Or else that plugin is named, and not the exporter, or the program, that reads what it has saved."""

    def save(folder: Path) -> None:
        (folder / "own").write_text(written)

    refused: Any = pytest.raises(PluginCallError, match=rf"acme 1: save\(\) of its Watched {message}")
    with refused if message else nullcontext():
        check_saved(made(save), BACKEND)
    check_saved(made(save, SimpleNamespace), BACKEND)  # built-in ones are held to it by their contract


def many(folder: Path) -> None:
    for number in range(1_001):
        (folder / str(number)).touch()


def sparse(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).touch()
        os.truncate(folder / name, 10 << 30)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "has written config.json, and models, adapters"),
        (lambda folder: (folder / "Model.safetensors").mkdir(), "has written Model.safetensors, and models, adapters"),
        (lambda folder: (folder / "readme.md").touch(), "has written readme.md, and models, adapters and exports"),
        (lambda folder: (folder / "../beside").touch(), "has written 'beside' outside of the folder"),
        (many, "has written over 1,000 files and folders"),
        (sparse, "has written 21,474,836,483 bytes, where 536,870,912 are most"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text("{"),
            "has written what no export may hold: .*tokenizer_config.json",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "BPE", "dropout": 0.5}}'),
            "has written what no export may hold: .*at random",
        ),
        (lambda folder: (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "a.B"}}'), ""),
    ],
)
def test_a_plugins_tokenizer_saves_what_an_export_may_hold(write: Callable[[Path], Any], message: str) -> None:
    """Its proof refuses it otherwise, after training, and names the export or its exporter."""

    def save(folder: Path) -> None:
        (folder / "own").write_text("f|t")
        write(folder)

    refused: Any = pytest.raises(PluginCallError, match=rf"acme 1: save\(\) of its Watched {message}")
    with refused if message else nullcontext():
        check_saved(made(save), BACKEND)
