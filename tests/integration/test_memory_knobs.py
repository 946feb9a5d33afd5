"""What a recipe says of memory changes no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import Cancelled
from graftkit.flow.cancel import CancelToken
from graftkit.flow.events import StepFinished
from graftkit.model import activation_checkpointing
from integration.conftest import RecipeMaker

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
    cancel = CancelToken()

    def stop(event: Any) -> None:
        if isinstance(event, StepFinished) and event.step.step == 3:
            cancel.cancel()

    with pytest.raises(Cancelled):
        graftkit.run(recipe | {"memory": BLOCKS}, out=tmp_path / "blocks", on_event=stop, cancel=cancel)
    graftkit.run(recipe, out=tmp_path / "blocks", resume=True)
    graftkit.run(recipe | {"memory": BLOCKS}, out=tmp_path / "all")
    assert len(recomputed) > 9 * 2, "each of the blocks in each of the steps"
    expected = (tmp_path / "plain" / ADAPTER).read_bytes()
    assert (tmp_path / "blocks" / ADAPTER).read_bytes() == expected
    assert (tmp_path / "all" / ADAPTER).read_bytes() == expected


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
    monkeypatch.setattr(activation_checkpointing, "repeated_blocks", lambda network: ([], []))
    with pytest.raises(graftkit.errors.RecipeError, match="activation checkpointing: it has no repeated blocks"):
        graftkit.run(make_recipe(memory=BLOCKS), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
