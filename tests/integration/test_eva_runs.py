"""Runs that start from the inputs of layers: exported, loaded by peft, and the same each time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.errors import RequestError
from graftkit.flow.answering.reload import reload
from graftkit.flow.preparation.observed_start import START_FILE
from safetensors.torch import load_file
from stopped_runs import run_until

RecipeMaker = Callable[..., dict[str, Any]]


def test_a_run_starts_from_it_goes_on_and_is_loaded_by_peft(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The ranks are in the manifest and in peft's folder; a run that goes on reads the start that was made."""
    adapter = {"use": "lora", "rank": 4, "init": "eva", "eva_tokens": 400, "targets": ["all-linear", "embed_tokens"]}
    training = {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-3, "device": "cpu"}
    recipe = make_recipe(adapter=adapter, training=training, export=["peft", "merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    manifest = result.manifest
    assert {facts["proof"]["status"] for facts in manifest["exports"].values()} == {"proved"}
    ranks = manifest["providers"]["adapter"]["config"]["rank_pattern"]
    of_peft = json.loads((result.exports["peft"] / "adapter_config.json").read_bytes())
    assert ranks and of_peft["rank_pattern"] == ranks
    tensors = load_file(result.exports["peft"] / "adapter_model.safetensors")
    found = {name: len(t) for name, t in tensors.items() if "lora_A" in name}
    assert {path: found[f"base_model.model.{path}.lora_A.weight"] for path in ranks} == ranks
    assert sum(found.values()) == 4 * 14

    ids = torch.tensor([[257, 40, 41, 42, 43, 99, 101, 7]])
    with torch.no_grad():
        expected = reload(str(result.folder)).network(input_ids=ids).logits
        other = reload(str(result.exports["peft"])).network(input_ids=ids).logits
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-5)

    made = (result.folder / START_FILE).read_bytes()
    stopped = make_recipe(adapter=adapter, training=training, export=[])
    run_until(1, stopped, tmp_path / "again")
    again = graftkit.run(stopped, out=tmp_path / "again", resume=True)
    assert (again.folder / START_FILE).read_bytes() == made
    whole = load_file(again.folder / "adapter" / "adapter.safetensors")
    before = load_file(result.folder / "adapter" / "adapter.safetensors")
    assert whole.keys() == before.keys() and all(torch.equal(whole[name], before[name]) for name in whole)


def test_too_few_tokens_are_refused(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    adapter = {"use": "lora", "rank": 4, "init": "eva", "eva_tokens": 5}
    with pytest.raises(RequestError, match=re.escape("init: eva takes up to 8 components of the inputs of 'model.")):
        graftkit.run(make_recipe(adapter=adapter), out=tmp_path / "run")
