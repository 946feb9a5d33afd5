"""What `toolkit plan --devices` forecasts is what processes send one another, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import graftkit
import pytest
import yaml
from counted_processes import COMMAND, counts_of
from graftkit.flow.memory.forecast_memory import Sizes, forecast_with_blocks, passes_of_steps
from graftkit.training.processes import shares
from graftkit.training.traffic import evaluation_bytes, step_traffic
from integration.conftest import RecipeMaker
from safetensors.numpy import load_file
from started_together import start_together

TRAINING = {"steps": 4, "tokens_per_step": 400, "microbatch_tokens": 64, "learning_rate": 1e-2, "device": "cpu"}
CASES: Mapping[str, tuple[Mapping[str, Any], str, int, int]] = {
    "each has all": ({"tokenizer": {"extend": {"tokens": 40}}}, "data", 2, 2),
    "all share": ({"quantizer": "nf4", "memory": {"checkpoint": "blocks"}}, "shard", 3, 3),
    "neighbours share, and passes are scored first": ({"objective": "kto"}, "hybrid", 4, 2),
}


def lengths_in(run: Path) -> list[int]:
    """Returns the tokens of each example that a run has encoded."""
    offsets = load_file(run / "tokens" / "train.safetensors")["offsets"]
    found: list[int] = (offsets[1:] - offsets[:-1]).tolist()
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_step_sends_what_is_forecast(name: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Records are of lengths by which passes are shared out unevenly."""
    sections, way, count, here = CASES[name]
    records, path, kto = tmp_path / "records.jsonl", tmp_path / "recipe.yaml", "objective" in sections
    with records.open("w") as file:
        for n in range(60):
            said = {"prompt": f"say {n} " + "or so " * (n % 6), "completion": "good " * (1 + n % 4)}
            file.write(json.dumps(said | ({"label": n % 3 == 0} if kto else {})) + "\n")
    recipe = make_recipe(
        data={"train": str(records), "holdout": 0.5, "max_length": 256},
        training={**TRAINING, "parallel": way},
        export=[],
        **sections,
    )
    path.write_text(yaml.safe_dump(recipe))
    started = start_together(count, ["run", str(path), "--out", "out"], tmp_path, here=here, program=("-c", COMMAND))
    assert [code for code, _ in started.wait()] == [0] * count

    asked = (plan := graftkit.plan(recipe, as_run=True)).ask_memory
    assert asked is not None
    request = asked(plan.bound)
    _, uses = forecast_with_blocks(request)
    assert uses is not None
    sharers = {"data": 1, "hybrid": here, "shard": count}[way]
    counted = [counts_of(tmp_path, rank) for rank in range(count)]
    lengths = lengths_in(tmp_path / "out")
    steps = passes_of_steps(
        plan.bound.recipe, Sizes(lengths, lengths, 0, sequences=1 + kto), packed=request.dry.packing.packed
    )
    tokens = [[sum(lengths[example] for example in group) for group in step] for step in steps]
    if name == "all share":  # of records that are few it is known exactly
        assert list(map(list, request.steps)) == tokens
    passes = [[len(own) for own in shares(step, count)] for step in tokens]
    assert any(len(set(own)) > 1 for own in passes[1:3])
    for number, own in enumerate(passes[1:3], 1):  # the first step tries besides how logits can be made
        expected = step_traffic(uses, own, sharers, together=request.together)
        for rank, (said, found) in enumerate(zip(expected, counted, strict=True)):
            step = found["steps"][number]
            assert sum(step.get("blocks", [])) == said.blocks
            assert bool(said.blocks) == (sharers > 1 and own[rank] > 0)
            assert sum(step.get("agreements", [])) == said.agreements
            assert step["sums"][-1] == said.gradients and (kto or len(step["sums"]) == 1)
            assert step["received"] - found["steps"][number - 1]["received"] == said.blocks
    of_pass = evaluation_bytes(uses, sharers)
    assert bool(of_pass) == (sharers > 1)
    for found in counted:
        for marks in found["evaluations"]:  # the first pass has no block that another one has left
            assert len(marks) > 2
            assert {after - before for before, after in pairwise(marks[1:])} == {of_pass}
    evaluation, reference, start = 1, int(kto), 1
    for found in counted:
        assert sum(found["before"]["broadcast"]) == (evaluation + reference + start) * 4 * sum(uses.trained)
        assert sum(found["before"].get("spread", [])[1::2]) == (sum(uses.sizes) if sharers > 1 else 0)
