"""Passes as large as the memory allows, and blocks computed again where not even the smallest fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from graftkit.errors import FolderError
from graftkit.flow.memory.fit_memory import MemoryLimits
from graftkit.flow.memory.free_memory import available_memory, free_memory
from graftkit.flow.planning.earlier_run import EarlierRun
from graftkit.flow.planning.settle_memory import pass_sizes, settle_memory
from graftkit.flow.preparation import settle_dtype
from graftkit.recipe.load import load_recipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import MemoryForecast, RunManifest, StageMemory

AUTO = {"microbatch_tokens": "auto", "tokens_per_step": 16384}


def recipe(training: Mapping[str, Any] = AUTO, checkpoint: str = "auto") -> Recipe:
    sections = {"training": dict(training), "memory": {"checkpoint": checkpoint}}
    return load_recipe({"model": "m", "data": {"train": "x.jsonl"}, **sections}).recipe


def forecast(values: Mapping[str, Any]) -> MemoryForecast:
    """A megabyte a token, a fifth of it where blocks are computed again, and a hundred for everything else."""
    per_token = 200_000 if values["memory.checkpoint"] == "blocks" else 1_000_000
    size = 10**8 + per_token * values["training.microbatch_tokens"]
    return MemoryForecast(device="cpu", stages=[StageMemory(stage="training", host=size)])


@pytest.mark.parametrize(
    ("free", "size", "checkpoint"),
    [
        *((10**11, 8192, "none"), (5 * 10**9, 4096, "none"), (2 * 10**9, 1024, "none")),
        *((11 * 10**8, 4096, "blocks"), (4 * 10**8, 1024, "blocks"), (10**8, 1024, "blocks")),
    ],
)
def test_the_largest_passes_that_fit_are_taken(free: int, size: int, checkpoint: str) -> None:
    found = settle_memory(recipe(), 300, forecast, MemoryLimits(free)).keys
    assert {key: settled.value for key, settled in found.items()} == {
        "training.microbatch_tokens": size,
        "memory.checkpoint": checkpoint,
    }
    told = found["memory.checkpoint"].reason
    assert ("does not fit" in told) is (free == 10**8) and ("; without it" in told) is (checkpoint == "blocks")


def test_only_keys_that_say_auto_are_settled() -> None:
    only_size = settle_memory(recipe(checkpoint="none"), 300, forecast, MemoryLimits(10**9)).keys
    assert {key: settled.value for key, settled in only_size.items()} == {"training.microbatch_tokens": 1024}
    only_checkpoint = settle_memory(recipe({"microbatch_tokens": 2000}), 300, forecast, MemoryLimits(10**9)).keys
    assert {key: settled.value for key, settled in only_checkpoint.items()} == {"memory.checkpoint": "blocks"}
    assert not settle_memory(recipe({}, "blocks"), 300, forecast, MemoryLimits(10**9)).keys


def test_the_least_is_taken_where_nothing_is_known() -> None:
    unknown = settle_memory(recipe(), 300, lambda values: MemoryForecast(device="cpu", unknown="no"), MemoryLimits(1))
    assert [settled.value for settled in unknown.keys.values()] == [1024, "none"]
    untold = settle_memory(recipe(), 300, forecast, MemoryLimits())
    assert [settled.value for settled in untold.keys.values()] == [1024, "none"]
    refused = settle_memory(recipe(), 300, forecast, MemoryLimits(10**9), "they draw numbers").keys
    assert refused["memory.checkpoint"].value == "none" and "they draw numbers" in refused["memory.checkpoint"].reason


def test_a_pass_holds_the_longest_example_and_no_more_than_a_step() -> None:
    assert pass_sizes(recipe(), 300) == [8192, 4096, 2048, 1024]
    assert pass_sizes(recipe(), 3000) == [8192, 4096, 3000]
    assert pass_sizes(recipe(AUTO | {"tokens_per_step": 1500}), 300) == [2048, 1024]
    assert pass_sizes(recipe(AUTO | {"tokens_per_step": 512}), 300) == [1024]
    assert pass_sizes(recipe({"microbatch_tokens": 77}), 300) == [77]


def test_what_may_be_taken_is_more_than_what_is_free() -> None:
    free, available = free_memory(), available_memory()
    assert free is None or (available is not None and available > 50_000_000)


def test_a_product_is_timed_on_a_cpu_and_nothing_is_drawn() -> None:
    state = torch.get_rng_state()
    found = settle_dtype.faster_dtype(torch.device("cpu"))
    assert found.value in ("float32", "bfloat16") and f"{torch.get_num_threads()} thread" in found.reason
    assert torch.equal(torch.get_rng_state(), state)
    assert settle_dtype.faster_dtype(torch.device("mps")).value == "float32"


def test_a_damaged_value_in_a_manifest_is_refused(tmp_path: Any) -> None:
    RunManifest(graftkit="0", status="interrupted", recipe={"training": {"dtype": "float8"}}).write(tmp_path)
    with pytest.raises(FolderError, match="training.dtype"):
        EarlierRun.read(tmp_path)
