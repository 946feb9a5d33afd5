"""A device that is not here is refused before rows are read, without torch where torch's build tells."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import graftkit
import pytest
import torch
from graftkit.errors import DataError, RecipeError, RequestError
from graftkit.flow import device
from graftkit.flow.device import refuse_device

RUN = """
import json, sys
import graftkit
from graftkit.errors import GraftkitError
try:
    graftkit.run(json.loads(sys.argv[1]), out=sys.argv[2])
except GraftkitError as error:
    print(json.dumps([type(error).__name__, error.message, error.where, "torch" in sys.modules]))
"""


def recipe(model: Path, folder: Path, device: str) -> dict[str, object]:
    """A recipe whose rows are damaged: whoever reads them before the device is checked says so instead."""
    (folder / "records.jsonl").write_text("{\n")
    return {
        "model": str(model),
        "data": {"train": str(folder / "records.jsonl")},
        "adapter": {"use": "lora", "rank": 2},
        "training": {"steps": 1, "device": device},
    }


@pytest.mark.parametrize("name", ["cuda", "cuda:9"])
def test_cuda_is_refused_without_torch_where_torch_is_built_without_it(
    tiny_model: Path, tmp_path: Path, name: str
) -> None:
    import torch

    if torch.version.cuda or torch.version.hip:
        pytest.skip("this torch is built with CUDA")
    command = [sys.executable, "-c", RUN, json.dumps(recipe(tiny_model, tmp_path, name)), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kind, message, where, with_torch = json.loads(done.stdout)
    assert (kind, where, with_torch) == ("RecipeError", "training.device", False)
    assert message.startswith(f"device '{name}' can't be used here: torch ") and "without CUDA" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["mps", "xpu", "cuda:99"])
def test_a_device_is_refused_before_rows_are_read(tiny_model: Path, tmp_path: Path, name: str) -> None:
    if name == "mps" and sys.platform == "darwin":
        pytest.skip("it may be here")
    with pytest.raises(RecipeError, match=f"device '{name}' can't be used here"):
        graftkit.run(recipe(tiny_model, tmp_path, name), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", ["dtype", "device", "no_grad", "inference_mode", "autocast"])
def test_settings_of_torch_that_change_what_is_computed_are_refused(tmp_path: Path, setting: str) -> None:
    with contextlib.ExitStack() as within:
        if setting == "dtype":
            within.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        elif setting == "device":
            within.enter_context(torch.device("meta"))
        else:
            within.enter_context(torch.autocast("cpu") if setting == "autocast" else getattr(torch, setting)())
        with pytest.raises(RequestError, match=rf"torch\..*{setting}.*would compute something else"):
            graftkit.run({}, out=tmp_path / "out")
        learns_alone = setting in ("no_grad", "inference_mode")
        with pytest.raises(RequestError, match="no such" if learns_alone else "an evaluation .* something else"):
            graftkit.evaluate(tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def test_a_plan_is_not_asked_for_the_device_of_another_machine(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        graftkit.plan(recipe(tiny_model, tmp_path, "cuda:9"))


@pytest.mark.parametrize("build", [None, SimpleNamespace(cuda="12.8", hip=None), SimpleNamespace(cuda=None, hip="6")])
def test_a_build_that_may_have_the_device_is_asked_itself(monkeypatch: pytest.MonkeyPatch, build: object) -> None:
    asked: list[str] = []
    monkeypatch.setattr(device, "_torch_build", lambda: build)
    monkeypatch.setattr("graftkit.flow.preparation.check_model.pick_device", asked.append)
    refuse_device("cuda:1")
    refuse_device("auto")
    refuse_device("cpu")
    assert asked == ["cuda:1"]
