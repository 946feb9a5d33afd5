"""Processes that keep the frozen weights among them train what one trains, and export it as one does."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
import yaml
from safetensors.torch import load_file
from started_together import Started, start_together

SHORT = {
    "steps": 4,
    "tokens_per_step": 400,
    "microbatch_tokens": 64,
    "learning_rate": 1e-2,
    "device": "cpu",
    "max_grad_norm": 0.5,
}
AGREE = 5e-4
"""How far parameters may differ, relative to the largest of each; see docs/scale.md."""


@pytest.fixture
def write(make_recipe: Any, tmp_path: Path) -> Any:
    """Writes a recipe and its records; returns its path."""

    def make(**sections: Any) -> str:
        records, path = tmp_path / "records.jsonl", tmp_path / "recipe.yaml"
        good, bad = ["good " * (1 + n % 4) for n in range(40)], ["bad " * (1 + n % 3) for n in range(40)]
        dpo = sections.get("objective") == "dpo"
        answers = [{"chosen": g, "rejected": b} if dpo else {"completion": g} for g, b in zip(good, bad, strict=True)]
        lines = [{"prompt": f"say {n} " + "or so " * (n % 6), **answer} for n, answer in enumerate(answers)]
        records.write_text("".join(json.dumps(line) + "\n" for line in lines))
        data = {"train": str(records), "holdout": 0.1, "max_length": 128}
        path.write_text(yaml.safe_dump(make_recipe(**{"data": data, "training": SHORT, "export": [], **sections})))
        return str(path)

    return make


def begin(count: int, recipe: str, out: Path, way: str, *more: str, here: int | None = None) -> Started:
    arguments = ["run", recipe, "--out", str(out), "--set", f"training.parallel={way}", *more]
    return start_together(count, arguments, out.parent, here=here)


def together(count: int, recipe: str, out: Path, way: str, *more: str, here: int | None = None) -> list[str]:
    """Runs a recipe; returns what each process said."""
    ended = begin(count, recipe, out, way, *more, here=here).wait()
    assert [code for code, _ in ended] == [0] * count, ended
    return [said for _, said in ended]


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def trained(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter.safetensors")


def curve(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    keys = ("loss", "gradient_norm", "holdout_loss")
    return [line[key] for line in lines for key in keys if key in line]


def assert_same(found: Path, one: Path) -> None:
    """Holds a run equal to one of a single process, within what docs/scale.md says."""
    assert curve(found) == pytest.approx(curve(one), rel=2e-5)
    wanted, has = trained(one), trained(found)
    assert wanted.keys() == has.keys()
    off = {n: float((has[n] - w).abs().max() / w.abs().max().clamp_min(1e-6)) for n, w in wanted.items()}
    assert max(off.values()) < AGREE, off
    said, expected = manifest(found), manifest(one)
    for when in ("before", "after"):
        losses = [facts["metrics"][when]["holdout_loss"] for facts in (said, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    assert said["parameters"] == expected["parameters"]


def test_shared_weights_train_what_whole_ones_do(write: Any, tmp_path: Path) -> None:
    """As with whole ones in as many processes bit for bit, and as in one process to rounding; exports are proved."""
    recipe = write(
        adapter={"use": "lora", "rank": 4, "dropout": 0.2, "targets": ["all-linear"]},
        quantizer="nf4",
        tokenizer={"extend": {"tokens": 40}},
        evaluation={"every": 2},
    )
    graftkit.run(recipe, out=tmp_path / "one")
    together(2, recipe, tmp_path / "data", "data")
    said, other = together(2, recipe, tmp_path / "shared", "shard", "--set", "export=[peft, merged]")
    assert_same(tmp_path / "shared", tmp_path / "one")
    whole, shared = trained(tmp_path / "data"), trained(tmp_path / "shared")
    assert all(torch.equal(shared[name], whole[name]) for name in whole)
    assert {n: e["proof"]["status"] for n, e in manifest(tmp_path / "shared")["exports"].items()} == {
        "peft": "proved",
        "merged": "proved",
    }
    assert "the frozen weights are shared by 2 processes" in said and not other


def test_neighbours_share_what_each_machine_has_whole(write: Any, tmp_path: Path) -> None:
    recipe = write(objective="dpo", quantizer="int8", memory={"checkpoint": "blocks"})
    graftkit.run(recipe, out=tmp_path / "one")
    said, *_ = together(4, recipe, tmp_path / "four", "hybrid", here=2)
    assert "the frozen weights are shared by 2 processes" in said
    assert_same(tmp_path / "four", tmp_path / "one")


def test_one_that_is_killed_is_named_and_nothing_is_lost(write: Any, tmp_path: Path) -> None:
    """The others wait for its parts then; the last whole step is kept."""
    recipe, out = write(), tmp_path / "out"
    started = begin(2, recipe, out, "shard", "--set", "training.steps=5000")
    metrics, end = out / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < end and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    begun = time.monotonic()
    started.processes[1].send_signal(signal.SIGKILL)
    (code, told), _ = started.wait()
    assert code == 1 and "the process of rank 1 (of 2) is gone" in told and told.count("error: ") == 1
    assert time.monotonic() - begun < 60
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    (kept,) = (out / "checkpoints").iterdir()
    assert kept.name == f"step-{steps[-1]:08d}"


REFUSED: list[tuple[Mapping[str, Any], int, Mapping[int, list[str]], str]] = [
    ({"adapter": {"use": "full"}}, 2, {}, "adapter full trains whole weights"),
    (
        {},
        1,
        {1: ["--set", "training.parallel=data"]},
        "rank 1 (of 2) holds frozen weights otherwise than rank 0's: data",
    ),
]


@pytest.mark.parametrize("sections, expected, more, said", REFUSED)
def test_what_can_not_be_shared_is_refused_before_a_record_is_encoded(
    write: Any, tmp_path: Path, sections: Mapping[str, Any], expected: int, more: Mapping[int, list[str]], said: str
) -> None:
    recipe, out = write(**sections), tmp_path / "out"
    arguments = ["run", recipe, "--out", str(out), "--set", "training.parallel=shard"]
    (code, told), (_, other) = start_together(2, arguments, tmp_path, more).wait()
    assert code == expected and said in told and "error: " not in other
    assert not (out / "tokens").exists()
