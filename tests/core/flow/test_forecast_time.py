"""How fast a training will be, by passes through some of the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from architectures import settings
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.flow import forecast_time
from graftkit.flow.forecast_time import time_a_pass
from graftkit.host.host import PluginHost
from graftkit.model.packing import choose_packing
from graftkit.model.skeleton import build_skeleton
from graftkit.model.twin import count_layers, fewest_layers, with_layers
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe
from graftkit.training.dry_run import PassSizes

CONFIG = {
    "model_type": "qwen3_next",
    **settings("qwen3_next"),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 12,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}


def test_layers_are_cut_with_one_of_every_kind() -> None:
    assert (count_layers(CONFIG), fewest_layers(CONFIG)) == (12, 3)
    cut = build_skeleton(with_layers(CONFIG, 6), "cut").config
    assert cut.num_hidden_layers == 6 and cut.layer_types == CONFIG["layer_types"][:6]


def test_each_further_layer_takes_what_those_that_were_timed_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(bound: Any, host: Any, files: Any, *others: Any) -> float:
        return 2.0 + 0.5 * count_layers(files.config)

    monkeypatch.setattr(forecast_time, "_seconds", seconds)
    host = PluginHost()
    bound = bind(load_recipe({"model": "m", "data": {"train": "x.jsonl"}}), host)
    found = time_a_pass(bound, host, CONFIG, choose_packing(CONFIG), torch.device("cpu"), PassSizes((40, 24), 30))
    assert found.layers == (3, 6) and found.seconds == pytest.approx(8.0) and found.tokens_per_second == 8.0


@pytest.mark.parametrize(("quantizer", "objective"), [("nf4", "sft"), ("stored", "sft"), ("none", "classification")])
def test_a_config_alone_is_timed(tmp_path: Path, quantizer: str, objective: str) -> None:
    (tmp_path / "model").mkdir()
    config = {**settings("gemma2"), "num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 96}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"model_type": "gemma2", "vocab_size": 320}))
    recipe = {"model": "./model", "data": {"train": "none.jsonl", "max_length": 64}, "quantizer": quantizer}
    recipe["objective"] = objective
    recipe |= {"training": {"microbatch_tokens": 128, "device": "cpu"}, "memory": {"checkpoint": "blocks"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(recipe))
    told = CliRunner().invoke(plan_command.command, [str(tmp_path / "job.yaml"), "--from-config", "--time", "--json"])
    assert told.exit_code == 0, told.output
    time = json.loads(told.stdout)["time"]
    if quantizer == "stored":
        assert "not timed: weights that stay as their file stores them" in time["text"]
    else:
        assert time["tokens_per_second"] > 0 and time["timed_layers"] == [2, 4], time
