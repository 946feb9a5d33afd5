"""One seed, one result, whatever else is installed: what a plugin does to the process changes no adapter."""

from __future__ import annotations

import importlib
import json
import random
import time
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit import Provider, hookimpl
from graftkit.errors import PluginCallError
from graftkit.flow.events import Event, Notice
from graftkit_adapters.lora import Lora
from graftkit_formats.config import RolesConfig
from graftkit_formats.messages import Messages
from graftkit_quantizers.dense import Dense

ADAPTER = "adapter/adapter.safetensors"


def disturb() -> None:
    """Changes what a run's numbers would depend on."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.manual_seed(time.time_ns() % 2**32)
    torch.use_deterministic_algorithms(True, warn_only=True)
    random.seed()


class Hooks:
    """Disturbs in each lifecycle hook."""

    @hookimpl
    def graftkit_run_started(self) -> None:
        disturb()

    @hookimpl
    def graftkit_stage_finished(self) -> None:
        disturb()

    @hookimpl
    def graftkit_step_finished(self) -> None:
        disturb()

    @hookimpl
    def graftkit_run_finished(self) -> None:
        disturb()


class DisturbingLora(Lora):
    """LoRA that disturbs once it has made a layer."""

    def attach(self, layer: Any) -> Any:
        made = super().attach(layer)
        disturb()
        return made


class DisturbingDense(Dense):
    """Keeps weights as they are, disturbs once it has stored one, and in the products of training."""

    def quantize(self, *arguments: Any) -> Any:
        stored = super().quantize(*arguments)
        disturb()
        return _late(stored)


def _late(weight: Any) -> Any:
    """Disturbs in the backward pass."""
    product = weight.matmul_transposed

    def disturbing(grad: Any) -> Any:
        torch.use_deterministic_algorithms(True, warn_only=True)
        return product(grad)

    weight.matmul_transposed = disturbing
    return weight


class Providers:
    """Offers both."""

    @hookimpl
    def graftkit_adapters(self) -> list[Provider]:
        disturb()
        config = "graftkit_adapters.config:LoraConfig"
        return [Provider(name="loud", target=f"{__name__}:DisturbingLora", config=config)]

    @hookimpl
    def graftkit_quantizers(self) -> list[Provider]:
        config = "graftkit_quantizers.config:DenseConfig"
        return [Provider(name="loud", target=f"{__name__}:DisturbingDense", config=config)]


def adapter_of(result: graftkit.RunResult) -> Any:
    return result.manifest["artifacts"][ADAPTER]


@pytest.fixture
def options() -> dict[str, Any]:
    return {"training": {"steps": 3, "tokens_per_step": 256, "device": "cpu"}}


def test_hooks_that_disturb_change_no_adapter_and_are_named(
    make_recipe: Any, options: Any, tmp_path: Path, capfd: Any
) -> None:
    adapter = {"use": "lora", "rank": 4, "dropout": 0.2}
    expected = graftkit.run(make_recipe(adapter=adapter, **options), out=tmp_path / "alone")
    [few_steps] = expected.manifest["notices"]
    assert few_steps.startswith("training.steps: 3 makes about")
    events: list[Event] = []
    host = graftkit.PluginHost(plugins=[Hooks()])
    before = torch.get_num_threads()
    found = graftkit.run(
        make_recipe(adapter=adapter, **options), out=tmp_path / "disturbed", host=host, on_event=events.append
    )
    assert adapter_of(found) == adapter_of(expected) and found.metrics == expected.metrics
    assert torch.get_default_dtype() is torch.float32 and torch.get_num_threads() == before
    told = [notice for notice in found.manifest["notices"] if "plugin 'Hooks'" in notice]
    hooks = ("run_started", "stage_finished", "step_finished", "run_finished")
    assert [notice.partition("graftkit_")[2].partition(" ")[0] for notice in told] == list(hooks)
    assert all("torch's default dtype" in notice and "torch's random state" in notice for notice in told)
    assert [event.message for event in events if isinstance(event, Notice)] == found.manifest["notices"]
    assert json.loads((found.folder / "manifest.json").read_text())["notices"] == found.manifest["notices"]


def test_providers_that_disturb_change_no_adapter_and_are_named(make_recipe: Any, options: Any, tmp_path: Path) -> None:
    expected = graftkit.run(make_recipe(**options), out=tmp_path / "alone")
    host = graftkit.PluginHost(plugins=[Providers()])
    adapter = {"use": "Providers:loud", "rank": 4}
    recipe = make_recipe(adapter=adapter, quantizer="Providers:loud", **options)
    found = graftkit.run(recipe, out=tmp_path / "disturbed", host=host)
    assert adapter_of(found)["sha256"] == adapter_of(expected)["sha256"]
    told = "\n".join(found.manifest["notices"])
    assert "plugin 'Providers': its hook graftkit_adapters changed Python's random state, torch's default dtype" in told
    assert (
        "plugin 'Providers': quantize() of its quantizer 'loud' changed Python's random state, torch's default dtype"
        in told
    )
    assert (
        "plugin 'Providers': attach() of its adapter 'loud' changed Python's random state, torch's default dtype"
        in told
    )
    assert "torch's deterministic algorithms changed, which core put back; in use was plugin 'Providers'" in told
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_provider_that_ends_the_program_ends_the_run_with_its_name(
    make_recipe: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DisturbingDense, "quantize", lambda *arguments: exit(0))
    host = graftkit.PluginHost(plugins=[Providers()])
    with pytest.raises(PluginCallError, match=r"plugin 'Providers': quantize\(\) of its quantizer 'loud' raised Sys"):
        graftkit.run(make_recipe(quantizer="Providers:loud", **options), out=tmp_path / "run", host=host)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed" and manifest["error"]["where"] == "plugin 'Providers'"


def test_a_provider_that_raises_is_named_in_the_manifest_too(
    make_recipe: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DisturbingDense, "quantize", lambda *arguments: 1 / 0)
    host = graftkit.PluginHost(plugins=[Providers()])
    with pytest.raises(ZeroDivisionError):
        graftkit.run(make_recipe(quantizer="Providers:loud", **options), out=tmp_path / "run", host=host)
    error = json.loads((tmp_path / "run" / "manifest.json").read_text())["error"]
    assert error["where"] == "plugin 'Providers' raised it: quantize() of its quantizer 'loud'"


class DisturbingFormat(Messages):
    """Reads conversations, and disturbs at each."""

    config_class = RolesConfig

    def sample(self, record: Any, where: str) -> Any:
        disturb()
        return super().sample(record, where)


def test_what_is_changed_while_a_request_is_judged_is_put_back(
    make_recipe: Any, options: Any, tmp_path: Path, chat_records: Path
) -> None:
    """Records are read before the first stage: what a format does to the process then lasts no longer than that."""
    expected = graftkit.run(make_recipe(**options), out=tmp_path / "alone")
    train = {"path": str(chat_records), "format": {"use": f"{__name__}:DisturbingFormat"}}
    data = {"train": [train], "holdout": 0.1, "max_length": 64}
    found = graftkit.run(make_recipe(**options, data=data), out=tmp_path / "disturbed")
    assert found.metrics["before"]["holdout_loss"] == expected.metrics["before"]["holdout_loss"]
    assert torch.get_default_dtype() is torch.float32
    [told] = [notice for notice in found.manifest["notices"] if "while the request was judged" in notice]
    assert "torch's default dtype" in told and f"plugin '{__name__}:DisturbingFormat'" in told


def test_hooks_that_take_long_are_told_at_the_end(
    make_recipe: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        @hookimpl
        def graftkit_step_finished(self) -> None:
            time.sleep(0.4)

    monkeypatch.setattr("graftkit.flow.state.run_plugins.LONG_HOOKS", 1.0)
    host = graftkit.PluginHost(plugins=[Slow()])
    for folder in ("first", "second"):
        found = graftkit.run(make_recipe(**options), out=tmp_path / folder, host=host)
        _few_steps, *notices = found.manifest["notices"]
        assert notices == ["plugin 'Slow': its hooks took 1 s of the run"]


LOUD_EXPORTER = """
from graftkit import Provider, hookimpl
from graftkit_exporters.merged import MergedExporter

class Loud(MergedExporter):
    def refusal(self, model):
        model.config.clear()

    def export(self, model, folder):
        found = super().export(model, folder)
        model.config.clear()
        model.generation_config.clear()
        return found

@hookimpl
def graftkit_exporters():
    return [Provider(name="loud", target="loud_exporter:Loud", config="graftkit_exporters.config:MergedConfig")]
"""


def test_an_exporter_that_changes_the_models_settings_changes_no_other_export(
    make_recipe: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud_exporter.py").write_text(LOUD_EXPORTER)
    monkeypatch.syspath_prepend(tmp_path)
    host = graftkit.PluginHost(plugins=[importlib.import_module("loud_exporter")])
    recipe = make_recipe(export=["loud_exporter:loud", "merged"], **options)
    found = graftkit.run(recipe, out=tmp_path / "run", host=host)
    first, second = (json.loads((found.exports[name] / "config.json").read_text()) for name in ("loud", "merged"))
    assert first == second and first["model_type"] == "llama"
