"""What a recipe says of memory changes no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.flow.events import Event, Notice
from graftkit.flow.planning import settle_memory
from graftkit.flow.preparation import base_model, settle_dtype
from graftkit.model import activation_checkpointing
from integration.conftest import RecipeMaker
from stopped_runs import run_until

BLOCKS = {"checkpoint": "blocks"}
ADAPTER = "adapter/adapter.safetensors"


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The blocks' calls that are computed again for their gradient."""
    calls: list[Any] = []
    own = activation_checkpointing.checkpoint

    def noted(function: Any, *inputs: Any, **keywords: Any) -> Any:
        calls.append(function)
        return own(function, *inputs, **keywords)

    monkeypatch.setattr(activation_checkpointing, "checkpoint", noted)
    return calls


def test_a_run_that_keeps_inputs_of_blocks_alone_trains_the_same(
    make_recipe: RecipeMaker, tmp_path: Path, recomputed: list[Any]
) -> None:
    """Bit for bit, also where it was stopped and goes on the other way."""
    recipe = make_recipe(adapter={"use": "lora", "rank": 4, "dropout": 0.2})
    graftkit.run(recipe, out=tmp_path / "plain")
    assert not recomputed
    run_until(3, recipe | {"memory": BLOCKS}, tmp_path / "blocks")
    graftkit.run(recipe, out=tmp_path / "blocks", resume=True)
    graftkit.run(recipe | {"memory": BLOCKS}, out=tmp_path / "all")
    assert len(recomputed) > 9 * 2, "each of the blocks in each of the steps"
    expected = (tmp_path / "plain" / ADAPTER).read_bytes()
    assert (tmp_path / "blocks" / ADAPTER).read_bytes() == expected
    assert (tmp_path / "all" / ADAPTER).read_bytes() == expected


def test_inputs_of_blocks_wait_in_the_hosts_memory_with_the_same_gradient(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is one tensor a block and pass: its hidden states, and nothing that the block computes of them."""
    recipe = make_recipe(adapter={"use": "lora", "rank": 4, "dropout": 0.2})
    graftkit.run(recipe, out=tmp_path / "plain")
    waiting: list[torch.Size] = []

    class Counted(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, pin_memory: bool) -> None:
            super().__init__(lambda tensor: (waiting.append(tensor.shape), tensor)[1], lambda tensor: tensor.clone())

    monkeypatch.setattr(activation_checkpointing, "save_on_cpu", Counted)
    monkeypatch.setattr(base_model, "offloads", lambda recipe, device: True)
    events: list[Event] = []
    graftkit.run(recipe | {"memory": {**BLOCKS, "offload": True}}, out=tmp_path / "away", on_event=events.append)
    assert (tmp_path / "away" / ADAPTER).read_bytes() == (tmp_path / "plain" / ADAPTER).read_bytes()
    assert waiting and {len(shape) for shape in waiting} == {3} and len({shape[2] for shape in waiting}) == 1
    assert any(isinstance(event, Notice) and "changes nothing on a CPU" in event.message for event in events)


def test_nothing_waits_where_nothing_is_checkpointed(make_recipe: RecipeMaker) -> None:
    with pytest.raises(graftkit.errors.RecipeError, match="memory.offload: what waits are the inputs of checkpointed"):
        graftkit.plan(make_recipe(memory={"offload": True}))


def test_a_preference_that_scores_first_and_learns_then_trains_the_same(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """KTO looks at a step's passes together: each is run without a graph, and again with one."""
    records = tmp_path / "labelled.jsonl"
    rows = [{"prompt": f"say {n}: ", "completion": f"{n}!" if n % 2 else "no?", "label": n % 2 == 1} for n in range(20)]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = make_recipe(
        data={"train": str(records), "holdout": 0.1, "max_length": 64},
        objective="kto",
        adapter={"use": "lora", "rank": 4, "dropout": 0.2},
        training={"steps": 3, "tokens_per_step": 256, "microbatch_tokens": 64, "learning_rate": 1e-2, "device": "cpu"},
    )
    graftkit.run(recipe, out=tmp_path / "plain")
    graftkit.run(recipe | {"memory": BLOCKS}, out=tmp_path / "blocks")
    assert (tmp_path / "blocks" / ADAPTER).read_bytes() == (tmp_path / "plain" / ADAPTER).read_bytes()


def test_a_model_whose_blocks_can_not_be_computed_twice_is_refused(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_checkpointing, "repeated_blocks", lambda network: ({}, []))
    with pytest.raises(graftkit.errors.RecipeError, match="activation checkpointing: it has no repeated blocks"):
        graftkit.run(make_recipe(memory=BLOCKS), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def with_products(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Has products take so long, by the type of their numbers."""
    monkeypatch.setattr(settle_dtype, "_seconds_of_a_product", lambda dtype: seconds[str(dtype).removeprefix("torch.")])


def test_a_run_goes_on_in_the_type_that_it_found_faster(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_recipe()["training"]
    recipe = make_recipe(training=training | {"dtype": "auto"})
    with_products(monkeypatch, float32=3.0, bfloat16=2.0)
    run_until(2, recipe, tmp_path / "run")
    with_products(monkeypatch, float32=2.0, bfloat16=3.0)
    manifest = graftkit.run(recipe, out=tmp_path / "run", resume=True).manifest
    assert manifest["recipe"]["training"]["dtype"] == "bfloat16"
    assert manifest["settled"]["training.dtype"]["value"] == "bfloat16"
    assert "products in bfloat16 are 1.5 times as fast as in float32" in manifest["settled"]["training.dtype"]["reason"]
    same = graftkit.run(make_recipe(training=training | {"dtype": "bfloat16"}), out=tmp_path / "said")
    assert (tmp_path / "run" / ADAPTER).read_bytes() == (same.folder / ADAPTER).read_bytes()
    other = graftkit.run(recipe, out=tmp_path / "other").manifest
    assert other["recipe"]["training"]["dtype"] == "float32"
    assert any(notice.startswith("training.dtype: auto is float32: products") for notice in other["notices"])


def test_a_run_goes_on_in_the_passes_that_it_began_with(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are settled in a process of its own, by a forecast that the manifest keeps beside what is measured."""
    training = make_recipe()["training"] | {"tokens_per_step": 300, "microbatch_tokens": "auto"}
    recipe = make_recipe(training=training, memory={"checkpoint": "auto"})
    monkeypatch.setattr(settle_memory, "available_memory", lambda: 10**6)
    run_until(2, recipe, tmp_path / "run")
    monkeypatch.setattr(settle_memory, "available_memory", lambda: 10**12)
    manifest = graftkit.run(recipe, out=tmp_path / "run", resume=True).manifest
    keys = {key: settled["value"] for key, settled in manifest["settled"].items()}
    assert keys == {"training.microbatch_tokens": 1024, "memory.checkpoint": "blocks"}
    assert "does not fit" in manifest["settled"]["memory.checkpoint"]["reason"]
    forecast, measured = manifest["memory"]["forecast"], manifest["memory"]["measured"]["host"]
    assert 200 < forecast["pass_tokens"] <= 300 and "training" in measured
    assert "training" in {stage["stage"] for stage in forecast["stages"]}


def test_what_can_not_be_forecast_is_settled_without(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftkit.flow.preparation import settle_memory_apart

    monkeypatch.setattr(settle_memory_apart, "__name__", "graftkit.no_such_module")
    training = make_recipe()["training"] | {"microbatch_tokens": "auto"}
    manifest = graftkit.run(
        make_recipe(training=training, memory={"checkpoint": "auto"}), out=tmp_path / "run"
    ).manifest
    values = {key: settled["value"] for key, settled in manifest["settled"].items()}
    assert values == {"training.microbatch_tokens": 1024, "memory.checkpoint": "none"}
    assert "No module named" in manifest["settled"]["memory.checkpoint"]["reason"]
