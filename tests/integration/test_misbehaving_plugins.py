"""A plugin that makes mistakes is named, loses nothing of the user's, and keeps no command from ending."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import graftkit
import pytest
import torch
from graftkit.cli.main import main
from graftkit.errors import ExportError, HookError, PluginCallError, StorageError
from graftkit.flow.exports.left_alone import files_left_alone, model_left_alone
from graftkit.host.guard import guarded_class
from graftkit.host.records import PluginRecord

SOURCE = """
import os, subprocess, threading, time
from pathlib import Path
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_adapters.lora_weight import LoraWeight
from graftkit_exporters.config import MergedConfig
from graftkit_exporters.merged import MergedExporter

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Exporter(MergedExporter):
    config_class = MergedConfig

class Lingering(Exporter):
    '''Leaves a thread and a child in a session of its own, which hold the proof's output open.'''
    def logits(self, request):
        threading.Thread(target=time.sleep, args=(60,)).start()
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        return super().logits(request)

class Untidy(Exporter):
    '''Leaves a file in the export that it only has to load.'''
    def logits(self, request):
        (Path(request.folder) / "cache.bin").write_text("x")
        return super().logits(request)

class Short(Exporter):
    '''Gives the logits of some tokens alone.'''
    def logits(self, request):
        return [logits[:, :3] for logits in super().logits(request)]

class Reaching(Exporter):
    '''Writes over the adapter that the run has kept.'''
    def export(self, trained, folder):
        (Path(folder).parent.parent / "adapter" / "adapter.safetensors").write_text("x")
        return super().export(trained, folder)

class Adapter(Lora):
    config_class = LoraConfig
    layer = LoraWeight
    def attach(self, layer):
        made = super().attach(layer)
        made.__class__ = self.layer
        return made

class LeavingConfig(LoraConfig):
    def refusal(self, layer):
        raise SystemExit(0)

class Leaving(Lora):
    config_class = LeavingConfig

class EndingLayer(LoraWeight):
    def forward(self, x):
        raise SystemExit(0)

class Ending(Adapter):
    layer = EndingLayer

class MuteLayer(LoraWeight):
    def forward(self, x):
        raise Mute()

class Silent(Adapter):
    layer = MuteLayer

class ForgetfulLayer(LoraWeight):
    def adapter_state(self):
        return {"lora_A": super().adapter_state()["lora_A"]}
    def load_adapter_state(self, tensors):
        self.lora_A.data.copy_(tensors["lora_A"])

class Forgetful(Adapter):
    layer = ForgetfulLayer

class FlatLayer(LoraWeight):
    def delta(self):
        return super().delta().flatten()

class Flat(Adapter):
    layer = FlatLayer
"""
OPTIONS = {"training": {"steps": 1, "tokens_per_step": 128, "device": "cpu"}}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with plugins that make mistakes, and its module's name."""
    package = f"odd_{tmp_path.name.replace('-', '_')}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "plugins.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{package}.plugins"


def error_of(folder: Path) -> dict[str, str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    return dict(manifest["error"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Ending", "it raised SystemExit: 0"),
        ("Silent", "its text can't be made"),
        ("Forgetful", r"adapter_state\(\) .*no state that brings back lora_B"),
        ("Flat", r"delta\(\) of its FlatLayer gave a tensor of the shape \[4096\]"),
    ],
)
def test_a_layer_that_fails_is_named(make_recipe: Any, odd: str, tmp_path: Path, name: str, message: str) -> None:
    """Layers are not guarded one by one, and yet no error of theirs goes without a name, or ends the program."""
    recipe = make_recipe(adapter={"use": f"{odd}:{name}", "rank": 4}, export=["merged"], **OPTIONS)
    with pytest.raises(Exception) as caught:
        graftkit.run(recipe, out=tmp_path / "run")
    assert caught.type is PluginCallError or caught.type.__name__ == "Mute"
    error = error_of(tmp_path / "run")
    assert error["where"].startswith(f"plugin '{odd}:{name}'")
    assert re.search(message, error["message"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Untidy", "while it was proved, plugin '.*Untidy' changed cache.bin"),
        ("Short", "computes something else"),
        ("Reaching", "changed or removed adapter/adapter.safetensors"),
    ],
)
def test_an_exporter_that_fails_is_named(make_recipe: Any, odd: str, tmp_path: Path, name: str, message: str) -> None:
    recipe = make_recipe(export=[{"use": f"{odd}:{name}", "name": "odd"}], **OPTIONS)
    with pytest.raises((ExportError, PluginCallError), match=message) as caught:
        graftkit.run(recipe, out=tmp_path / "run")
    assert f"plugin '{odd}:{name}'" in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert error_of(tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no sessions")
def test_what_a_proof_leaves_running_keeps_no_run_waiting(make_recipe: Any, odd: str, tmp_path: Path) -> None:
    start = time.monotonic()
    graftkit.run(make_recipe(export=[{"use": f"{odd}:Lingering", "name": "odd"}], **OPTIONS), out=tmp_path / "run")
    assert time.monotonic() - start < 40


def test_a_plugin_that_ends_a_command_is_named(
    make_recipe: Any, odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fields of an adapter are asked too often to be guarded, and yet no command ends as if it had done its work."""
    (tmp_path / "recipe.yaml").write_text(json.dumps(make_recipe(adapter={"use": f"{odd}:Leaving", "rank": 4})))
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(tmp_path / "recipe.yaml")])
    assert caught.value.code == 1
    assert f"error: plugin '{odd}:Leaving': it raised SystemExit: 0" in capsys.readouterr().err


def remove_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def change_adapter(folder: Path) -> None:
    (folder / "adapter" / "adapter.safetensors").write_bytes(b"x")


def move(folder: Path) -> None:
    folder.rename(folder.parent / "moved")


@pytest.mark.parametrize(
    ("hook", "act", "message"),
    [
        ("graftkit_step_finished", remove_tokenizer, "changed or removed tokenizer/"),
        ("graftkit_evaluation_finished", change_adapter, "changed or removed adapter/adapter.safetensors"),
        ("graftkit_run_started", move, "has moved or removed the run's folder"),
        ("graftkit_step_finished", move, "has moved or removed the run's folder"),
    ],
)
def test_a_hook_that_takes_a_file_from_the_run_is_named(
    make_recipe: Any, tmp_path: Path, hook: str, act: Any, message: str
) -> None:
    """What a hook removes is missed at once, and not by whoever wants to use the finished run; its own files stay."""

    def call(run: Any) -> None:
        (run.folder / "own.txt").write_text("x")
        if act is not change_adapter or (run.folder / "adapter").is_dir():
            act(run.folder)

    call.__name__ = hook
    plugin = ModuleType("careless")
    setattr(plugin, hook, graftkit.hookimpl(call))
    with pytest.raises((HookError, StorageError)) as caught:
        graftkit.run(make_recipe(**OPTIONS), out=tmp_path / "run", host=graftkit.PluginHost(plugins=[plugin]))
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"plugin 'careless': its hook {hook} {message}" in told


def test_a_hooks_own_files_may_change(make_recipe: Any, tmp_path: Path) -> None:
    def graftkit_step_finished(run: Any, step: Any) -> None:
        (run.folder / "own.txt").write_text(f"{step.step}")
        if sys.platform == "linux":
            Path(os.fsdecode(os.fsencode(run.folder) + b"/own\xff")).write_text("x")
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)

    plugin = ModuleType("careful")
    plugin.graftkit_step_finished = graftkit.hookimpl(graftkit_step_finished)  # type: ignore[attr-defined]
    options = {"training": OPTIONS["training"] | {"steps": 2, "checkpoint_every": 1}}
    found = graftkit.run(make_recipe(**options), out=tmp_path / "run", host=graftkit.PluginHost(plugins=[plugin]))
    assert (found.folder / "own.txt").read_text() == "2"


def test_files_beside_an_exporters_own_are_left_alone(tmp_path: Path) -> None:
    own, plugin = tmp_path / "own", PluginRecord("odd", "acme", "1.5", "acme")
    exporter = guarded_class(type("Made", (), {}), plugin, "exporter", "twig")()
    own.mkdir()
    (tmp_path / "a").write_text("a")
    with files_left_alone(exporter, tmp_path, own):
        (own / "b").write_text("b")
    with files_left_alone(exporter, tmp_path, own):
        (tmp_path / "c").write_text("c")
    assert plugin.notices == [
        f"plugin 'odd' of acme 1.5: its exporter wrote c in {tmp_path}, outside of the folder that it was given"
    ]
    for change in (lambda: (tmp_path / "a").write_text("other"), (tmp_path / "a").unlink):
        with (
            pytest.raises(PluginCallError, match="plugin 'odd' of acme 1.5: export.* changed or removed a of"),
            files_left_alone(exporter, tmp_path, own),
        ):
            change()


def test_the_trained_model_is_left_alone() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3).half(), torch.nn.BatchNorm1d(3))
    with model_left_alone(object(), network):
        list(network.parameters())
    weight = network[0].weight.data
    for change in (
        lambda: weight.mul_(2),
        lambda: network[1].running_mean.fill_(1),
        lambda: weight.copy_(weight[[1, 0, 2]]),  # as formats have the rows of queries in another order
        lambda: weight.copy_(weight[:, [0, 2, 1]]),
    ):
        with pytest.raises(PluginCallError, match="of the trained model"), model_left_alone(object(), network):
            change()
