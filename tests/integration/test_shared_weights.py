"""Processes that keep the frozen weights among them train what one trains, and export it as one does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
import yaml
from safetensors.torch import load_file
from started_together import start_together

TRAINING = {
    "steps": 4,
    "tokens_per_step": 400,
    "microbatch_tokens": 64,
    "learning_rate": 1e-2,
    "device": "cpu",
    "parallel": "shard",
}
AGREE = 5e-4
"""How far parameters may differ, relative to the largest of each; see docs/scale.md."""
EXPORTS = ["peft", "merged"]


@pytest.fixture
def write(make_recipe: Any, tmp_path: Path) -> Any:
    """Writes a recipe and its records; returns its path."""

    def make(training: Mapping[str, Any] | None = None, **sections: Any) -> str:
        records = tmp_path / "records.jsonl"
        lines = [{"prompt": f"say {n} " + "or so " * (n % 6), "completion": f"{n}! " * (1 + n % 4)} for n in range(40)]
        records.write_text("".join(json.dumps(line) + "\n" for line in lines))
        data = {"train": str(records), "holdout": 0.1, "max_length": 128}
        path = tmp_path / "recipe.yaml"
        path.write_text(
            yaml.safe_dump(make_recipe(data=data, training={**TRAINING, **(training or {})}, export=EXPORTS) | sections)
        )
        return str(path)

    return make


def together(count: int, recipe: str, out: Path, *more: str) -> None:
    ended = start_together(count, ["run", recipe, "--out", str(out), *more], out.parent).wait()
    assert [code for code, _ in ended] == [0] * count, ended


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def trained(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter.safetensors")


def curve(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [number for line in lines if "loss" in line for number in (line["loss"], line["gradient_norm"])]


def same(found: Path, one: Path) -> None:
    """Holds a run equal to one of a single process, within what docs/scale.md says, and its exports proved."""
    assert curve(found) == pytest.approx(curve(one), rel=2e-5)
    before, after = trained(one), trained(found)
    assert before.keys() == after.keys()
    for name, wanted in before.items():
        assert (after[name] - wanted).abs().max() <= AGREE * wanted.abs().max().clamp_min(1e-6), name
    said, wanted_said = manifest(found), manifest(one)
    for when in ("before", "after"):
        losses = (facts["metrics"][when]["holdout_loss"] for facts in (said, wanted_said))
        assert next(losses) == pytest.approx(next(losses), rel=2e-5)
    assert said["parameters"] == wanted_said["parameters"]
    assert {name: facts["proof"]["status"] for name, facts in said["exports"].items()} == dict.fromkeys(
        said["exports"], "proved"
    )


@pytest.mark.parametrize("count, quantizer", [(2, "none"), (3, "nf4")])
def test_shared_weights_train_the_same(write: Any, tmp_path: Path, count: int, quantizer: str) -> None:
    recipe = write(quantizer={"use": quantizer})
    graftkit.run(recipe, out=tmp_path / "one")
    together(count, recipe, tmp_path / "shared")
    same(tmp_path / "shared", tmp_path / "one")
