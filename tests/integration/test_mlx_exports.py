"""Models and adapters for mlx-lm, proved by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
from architectures import settings
from graftkit.errors import FolderError
from graftkit.flow.answering.reload import reload
from graftkit.testing import tiny_model_folder
from safetensors.torch import load_file

RecipeMaker = Callable[..., dict[str, Any]]


def test_ranks_and_scales_of_their_own_stand_in_the_matrices(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    adapter = {"use": "lora", "rank": 4, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 2.0}}
    result = graftkit.run(make_recipe(adapter=adapter, export=["mlx-lora", "peft"]), out=tmp_path / "run")
    proofs = {name: facts["proof"]["status"] for name, facts in result.manifest["exports"].items()}
    assert proofs == {"mlx-lora": "proved", "peft": "proved"}
    folder = result.exports["mlx-lora"]
    ours, theirs = (
        load_file(folder / "adapters.safetensors"),
        load_file(result.exports["peft"] / "adapter_model.safetensors"),
    )
    said = json.loads((folder / "adapter_config.json").read_bytes())["lora_parameters"]
    assert (said["rank"], said["scale"]) == (4, 1.0)
    assert {name.rpartition(".")[0] for name in ours} == {*said["keys"]}
    layer = "model.layers.1.self_attn.q_proj"
    a, b = ours[f"{layer}.lora_a"], ours[f"{layer}.lora_b"]
    assert a.shape[1] == b.shape[0] == 4 and not a[:, 2:].any() and not b[2:].any() and b[:2].any()
    assert (theirs[f"base_model.model.{layer}.lora_A.weight"] == a[:, :2].T).all()
    with pytest.raises(FolderError, match="an export of 'mlx-lora' can't be tried by graftkit itself"):
        reload(str(folder))


def test_a_mixture_is_quantized_expert_by_expert(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model", **settings("mixtral"))
    exports = [{"use": "mlx", "bits": 4, "group_size": 32}, "merged"]
    result = graftkit.run(make_recipe(model=str(model), quantizer="nf4", export=exports), out=tmp_path / "run")
    proofs = {name: facts["proof"]["status"] for name, facts in result.manifest["exports"].items()}
    assert proofs == {"mlx": "proved", "merged": "proved"}
    written = load_file(result.exports["merged"] / "model.safetensors")
    assert written.keys() == load_file(model / "model.safetensors").keys()
    stacks = [name for name in load_file(result.exports["mlx"] / "model.safetensors") if "switch_mlp" in name]
    assert len(stacks) == 2 * 3 * 3  # layers, matrices, and what each is stored as
