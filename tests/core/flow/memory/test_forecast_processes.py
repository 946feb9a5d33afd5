"""`toolkit plan --devices`: memory of each process by hand, which way is taken, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.errors import RecipeError
from graftkit.flow.memory.forecast_processes import Devices, of_each_process
from graftkit.flow.memory.parallel import choose_way
from graftkit.report.run_manifest import MemoryForecast, StageMemory
from graftkit.training.block_uses import BlockUses

HIDDEN, INNER, VOCAB, LAYERS, RANK = 256, 704, 1000, 4, 8
KEYS = 64
"""Width of the keys and values of all their heads together."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose model is nothing but a config.json."""
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    training = {"device": "cuda", "dtype": "bfloat16", "tokens_per_step": 4096, "microbatch_tokens": 256}
    found = {
        "model": "config.json",
        "data": {"train": "none.jsonl", "max_length": 256},
        "quantizer": "none",
        "adapter": {"use": "lora", "rank": RANK, "targets": "all-linear"},
        "training": training,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(found))
    return tmp_path / "job.yaml"


def planned(recipe: Path, *arguments: str) -> Any:
    """Returns what the command prints."""
    done = CliRunner().invoke(plan_command.command, [str(recipe), *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_plan_of_sixteen_devices_is_what_is_calculated_by_hand(recipe: Path) -> None:
    arguments = [
        "--from-config",
        "--devices",
        "16",
        "--nodes",
        "2",
        "--bandwidth",
        "10GB",
        "--network",
        "1GB",
        "--json",
    ]
    found = planned(recipe, *arguments)["processes"]
    ways = {way["way"]: way for way in found["ways"]}
    layers = [(HIDDEN, HIDDEN)] * 2 + [(HIDDEN, KEYS)] * 2 + [(HIDDEN, INNER)] * 3
    block = 2 * sum(a * b for a, b in layers)
    trained, tensors = LAYERS * RANK * sum(a + b for a, b in layers), LAYERS * 2 * len(layers)
    gradients = 4 * (trained + tensors)
    once, pieces = 2 * LAYERS - 1, {"data": 1, "hybrid": 8, "shard": 16}
    peak = {way: facts["memory"]["device"] for way, facts in ways.items()}
    for way, sharers in pieces.items():
        facts, step = ways[way], ways[way]["step"]
        assert (facts["sharers"], step["passes"]) == (sharers, [1] * 16)
        assert step["blocks_received"] == once * (sharers - 1) * block // sharers
        assert (step["gradients"], step["gradients_received"]) == (gradients, 2 * 15 * gradients // 16)
        slow = 10**10 if way == "hybrid" else 10**9
        seconds = step["blocks_received"] / slow + step["gradients_received"] / 10**9
        assert step["sending_seconds"] == pytest.approx(seconds, abs=1e-4)
        if sharers > 1:
            assert peak["data"] - peak[way] == LAYERS * block - LAYERS * block // sharers - block
    assert (found["parallel"], found["settled"]) == ("data", False)  # no memory of a device is known
    limit = (peak["data"] + peak["shard"]) // 2
    arguments += ["--set", "training.parallel=shard", "--device-memory", f"{limit}B"]
    assert planned(recipe, *arguments)["fit"]["changes"] == []


def test_sampled_answers_are_of_whole_models(recipe: Path) -> None:
    """Each token would have every block sent where processes share these."""
    arguments = [str(recipe), "--from-config", "--devices", "2", "--json"]
    arguments += ["--set", "objective={use: grpo, max_new_tokens: 8}"]
    assert [way["way"] for way in planned(recipe, *arguments[1:])["processes"]["ways"]] == ["data"]
    refused = CliRunner().invoke(plan_command.command, [*arguments, "--set", "training.parallel=shard"])
    assert isinstance(refused.exception, RecipeError) or refused.exit_code == 2
    assert "all frozen weights sent with training.parallel: shard" in f"{refused.output}{refused.exception}"


@pytest.mark.parametrize(
    ("room", "here", "count", "way"),
    [(80, 8, 8, "data"), (24, 8, 16, "hybrid"), (24, 8, 8, "shard"), (10, 8, 16, "shard"), (24, 1, 16, "shard")],
)
def test_the_way_that_sends_least_and_fits_is_taken(room: int, here: int, count: int, way: str) -> None:
    """70B in NF4: 38.5 GB on a device, 4.8 on each of eight; and 207 million numbers that are trained."""
    assert choose_way(38_500_000_000, 207_000_000, room * 10**9, here, count) == way


def test_a_training_takes_most_where_gradients_are_added_up() -> None:
    """Where a pass is small: the sum is a tensor of its own."""
    parts = {"weights": 100, "quantization": 10, "other_weights": 30, "adapter": 400, "gradients": 400}
    parts |= {"optimizer": 800, "activations": 7}
    stage = StageMemory(stage="training", host=5, device=sum(parts.values()), parts=parts)
    uses = BlockUses([64, 64], 110, [0, 1, 0], [0, 1], [60, 40])
    (found,) = of_each_process(MemoryForecast(device="cuda", stages=[stage]), uses, 2, 2).stages
    assert found.device == 2 * 64 + 30 + 400 + 400 + 800 + 4 * 102 and found.host == 5
    assert found.parts["gradients_of_all"] == 408 and "whole_block" not in found.parts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "2"], "say how many those are"),
        (["--devices", "3", "--nodes", "2"], "3 devices are not as many on each of 2 machines"),
        (["--devices", "2", "--network", "fast"], "'fast' is no size"),
        (["--devices", "2", "--quick"], "--quick forecasts nothing of several processes"),
        (["--from-config", "--device-memory", "8GB", "--set", "training.device=cpu"], "would compute on cpu"),
    ],
)
def test_devices_that_can_not_be_are_refused(recipe: Path, arguments: list[str], said: str) -> None:
    done: Any = CliRunner().invoke(plan_command.command, [str(recipe), *arguments])
    assert isinstance(done.exception, RecipeError) and said in str(done.exception)


def test_a_ring_enters_each_machine_once() -> None:
    devices = Devices(8, 2, bandwidth=100, network=30)
    assert (devices.here, devices.slowest(4), devices.slowest(8)) == (4, 100, 30)
