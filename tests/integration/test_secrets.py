"""A secret in the environment, the configuration or the arguments is in nothing that a run writes or shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CANARIES = {
    "HF_TOKEN": "canary-one-of-the-environment",
    "AWS_SECRET_ACCESS_KEY": "canary-two-of-the-environment",
    "MY_PASSWORD": "canary-three-of-the-environment",
}
STORED, GIVEN = "canary-of-the-hubs-configuration", "canary-of-the-arguments"

LEAKY = """
import os
from graftkit import Provider, ProviderConfig, hookimpl
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora

class LeakyConfig(LoraConfig):
    hub_token: str = ""

os.write(1, b"written past Python\\n")
os.system("echo by another process")

class Leaky(Lora):
    def __init__(self, config):
        super().__init__(config)
        import warnings
        warnings.warn("the environment is " + str(dict(os.environ)))
        if os.environ.get("FAILS"):
            raise RuntimeError("the token " + os.environ["HF_TOKEN"] + " was refused")

@hookimpl
def graftkit_adapters():
    return [Provider(name="leaky", target="leaky:Leaky", config="leaky:LeakyConfig")]
"""


@pytest.fixture
def toolkit(tmp_path: Path) -> Any:
    """Runs the command where secrets are around; returns its streams, in which there is none."""
    home, site = tmp_path / "home", tmp_path / "site"
    (home / "hf").mkdir(parents=True)
    (home / "hf" / "token").write_text(STORED)
    (site / "leaky-1.0.dist-info").mkdir(parents=True)
    (site / "leaky.py").write_text(LEAKY)
    (site / "leaky-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (site / "leaky-1.0.dist-info" / "entry_points.txt").write_text("[graftkit.plugins.v1]\nmain = leaky\n")

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(site), *(path for path in sys.path if path)])
        environment = {**os.environ, **CANARIES, "HF_HOME": str(home / "hf"), "PYTHONPATH": path, **more}
        command = [sys.executable, "-m", "graftkit", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert not hits(done.stdout + done.stderr), done.stdout + done.stderr
        return done

    return call


def hits(text: str) -> list[str]:
    return [canary for canary in (*CANARIES.values(), STORED, GIVEN) if canary in text]


def written(folder: Path) -> dict[str, list[str]]:
    """Returns the canaries in each file that holds one, whatever its format."""
    found = {str(path): hits(path.read_bytes().decode("latin-1")) for path in folder.rglob("*") if path.is_file()}
    return {path: canaries for path, canaries in found.items() if canaries}


@pytest.fixture
def recipe(make_recipe: Any, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    evaluation = {"answers": 1, "max_new_tokens": 2}
    adapter = {"use": "leaky", "rank": 2}
    training = {"steps": 2, "tokens_per_step": 256, "device": "cpu"}
    path.write_text(
        yaml.safe_dump(
            make_recipe(adapter=adapter, export=["merged", "peft"], evaluation=evaluation, training=training)
        )
    )
    return str(path)


def test_no_file_of_a_run_and_neither_stream_holds_a_secret(toolkit: Any, recipe: str, tmp_path: Path) -> None:
    done = toolkit("run", recipe, "--out", "out", "--json", "--set", f"adapter.hub_token={GIVEN}")
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "out") == {}
    assert json.loads(done.stdout)["status"] == "finished"
    assert "written past Python" in done.stderr and "by another process" in done.stderr
    assert "the environment is" in done.stderr and "'HF_TOKEN': '***'" in done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["recipe"]["adapter"]["hub_token"] == "***"
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "metrics.jsonl", "exports"}
    for arguments in (
        ["generate", "out", "say 3"],
        ["verify", "out/exports/merged"],
        ["plan", recipe, "--set", f"adapter.hub_token={GIVEN}"],
    ):
        again = toolkit(*arguments)
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    "assignment",
    [
        f"training.hub_token={GIVEN}",
        f"hub.api_key={GIVEN}",
        f"adapter.hub_token=[{GIVEN}",
        f"adapter.hub_token=[{GIVEN}]",
        f"model=https://me:{GIVEN}@host/model",
    ],
)
def test_no_error_repeats_a_secret_argument(toolkit: Any, recipe: str, tmp_path: Path, assignment: str) -> None:
    done = toolkit("run", recipe, "--out", "out", "--set", assignment, "--traceback")
    assert done.returncode == 2 and "error: " in done.stderr
    assert written(tmp_path / "out") == {}


def test_no_error_of_a_plugins_brings_a_secret_into_the_manifest(toolkit: Any, recipe: str, tmp_path: Path) -> None:
    for more in ([], ["--traceback"]):
        done = toolkit("run", recipe, "--out", "out", *more, FAILS="1")
        assert done.returncode == 2 and "the token *** was refused" in done.stderr
    assert written(tmp_path / "out") == {}
