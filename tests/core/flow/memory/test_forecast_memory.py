"""The memory forecast: numbers calculated by hand, a config.json alone, recipes that are made to fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import graftkit
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli import plan as plan_command
from graftkit.errors import RecipeError
from graftkit.flow.memory.fit_memory import MemoryLimits, fit_memory, parse_size
from graftkit.flow.planning.targets import forecast
from graftkit.host.host import PluginHost
from graftkit.model.layers import linear_layers
from graftkit.model.skeleton import build_skeleton
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import load_recipe
from graftkit.report.run_manifest import MemoryForecast, StageMemory

LLAMA: dict[str, tuple[int, int, int, int, int]] = {
    "7B": (4096, 11008, 32, 3_340_772_224, 159_907_840),
    "13B": (5120, 13824, 40, 6_545_229_920, 250_347_520),
    "33B": (6656, 17920, 60, 16_560_512_400, 487_587_840),
    "65B": (8192, 22016, 80, 33_407_715_520, 799_539_200),
}
"""Hidden size h, intermediate size f, layers; then what is calculated by hand.

A layer has P = 4 h h + 3 h f weights: P / 2 bytes of codes, P / 64 of scales, and 4 (m / 16384 + 1) of the scales'
scales for each matrix of m weights. Its adapter of rank 64 has 64 (8 h + 3 (h + f)) numbers.
"""


@pytest.mark.parametrize("size", LLAMA)
def test_qlora_on_llama_takes_what_the_formula_says(size: str) -> None:
    hidden, inner, layers, frozen_bytes, adapter = LLAMA[size]
    config = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 128,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    }
    recipe = {"model": "llama", "data": {"train": "x.jsonl"}, "adapter": {"use": "qlora", "rank": 64}}
    bound = bind(load_recipe(recipe), PluginHost())
    found = linear_layers(build_skeleton(config, size))
    told = forecast(bound, found, [layer.path for layer in found])
    assert told == {"adapter_parameters": adapter, "frozen_linear_bytes": frozen_bytes}


@pytest.fixture
def recipe_of_a_config(tmp_path: Path) -> Path:
    """A recipe whose model is nothing but a config.json."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 3,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    recipe = {"model": "./model", "data": {"train": "none.jsonl", "max_length": 256}, "quantizer": "none"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "job.yaml"


def _plan(recipe: Path, *options: str, code: int = 0) -> dict[str, Any]:
    told = CliRunner().invoke(plan_command.command, [str(recipe), "--from-config", "--json", *options])
    assert told.exit_code == code, told.output
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_a_config_alone_is_enough(recipe_of_a_config: Path) -> None:
    memory = _plan(recipe_of_a_config)["memory"]
    stages = {stage["stage"]: stage for stage in memory["stages"]}
    parts = stages["training"]["parts"]
    layer = 2 * 1024 * 1024 + 2 * 1024 * 256 + 3 * 1024 * 2816
    assert parts["weights"] == 4 * 3 * layer
    assert parts["adapter"] == 4 * 3 * 16 * (2 * 2048 + 2 * 1280 + 3 * 3840)
    assert memory["pass_tokens"] == 1024 and memory["pass_sequences"] == 4
    assert 32000 * 1024 * 8 <= parts["other_weights"] < 32000 * 1024 * 8 + 100_000
    assert memory["peak"]["host"] == max(stage["host"] for stage in stages.values())
    assert "activations" in memory["text"]


@pytest.mark.parametrize(("objective", "sequences"), [("sft", 1), ("kto", 2), ("dpo", 2), ("reward", 2)])
def test_each_sequence_of_an_example_may_be_as_long_as_the_recipe_allows(
    recipe_of_a_config: Path, objective: str, sequences: int
) -> None:
    options = ("--set", f"objective={objective}", "--set", "training.microbatch_tokens=256")
    assert _plan(recipe_of_a_config, *options)["memory"]["pass_tokens"] == sequences * 256


def test_a_pair_is_forecast_as_long_as_both_of_its_sequences(tiny_model: Path, tmp_path: Path) -> None:
    """Together they are longer than `data.max_length`, which each of them keeps to."""
    pairs = tmp_path / "pairs.jsonl"
    said = [{"prompt": f"say {n} ", "chosen": "good " * 8, "rejected": "bad " * 8} for n in range(8)]
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in said))
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(pairs), "max_length": 96},
        "objective": "dpo",
        "training": {"steps": 1, "tokens_per_step": 128, "learning_rate": 1e-2, "microbatch_tokens": 128},
    }
    planned = graftkit.plan(recipe, as_run=True)
    assert planned.ask_memory is not None and planned.corpus is not None
    longest = max(planned.corpus.lengths)
    assert 96 < longest <= 192
    assert max(planned.ask_memory(planned.bound).dry.largest.lengths) == longest


def test_a_head_is_counted_in_the_place_of_the_output_layer(recipe_of_a_config: Path) -> None:
    """By hand: its rows in float32, their gradients and two moments; no logits of a vocabulary."""
    several = "{use: multi-label-classification, labels: [a, b, c]}"
    asked = {
        "sft": 0,
        "embedding": 0,
        "reward": 1,
        "regression": 1,
        "{use: classification, labels: [a, b, c]}": 3,
        several: 3,
    }
    adapter, language = 0, 0
    for objective, labels in asked.items():
        parts, head = _stages(recipe_of_a_config, objective), 4 * 1024 * labels
        adapter, language = adapter or parts["adapter"], language or parts["other_weights"]
        assert parts.get("head", 0) == head and ("logits" in parts) == (objective == "sft")
        assert parts["gradients"] == adapter + head and parts["optimizer"] == 2 * (adapter + head)
        assert language - parts["other_weights"] == (4 * 32000 * 1024 if objective != "sft" else 0)


@pytest.mark.parametrize("objective", ["reward", "embedding"])
def test_no_sequence_is_forecast_beyond_the_context(tmp_path: Path, objective: str) -> None:
    """Those of an example together may be: an encoder has no positions for that."""
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32, "num_attention_heads": 4}
    config |= {"num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 99, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = tmp_path / "recipe.yaml"
    data, training = "{train: r.jsonl, max_length: 60}", "{steps: 1, learning_rate: 1e-3, tokens_per_step: 512}"
    recipe.write_text(f"model: {tmp_path}\ndata: {data}\ntraining: {training}\n")
    assert _stages(recipe, objective)["activations"] > 0


def test_gradients_and_passes_of_a_step_are_counted_in_what_malloc_keeps(recipe_of_a_config: Path) -> None:
    """Each of several passes of a step finds what the one before left; with a head there are no logits."""
    for tokens, share in ((1024, 0.8), (4096, 1.2)):
        set_tokens = ("--set", f"training.tokens_per_step={tokens}", "--set", "training.microbatch_tokens=1024")
        parts = _stages(recipe_of_a_config, "reward", *set_tokens)
        assert parts["freed"] == round(share * (parts["activations"] + parts["gradients"])), tokens


def test_sampled_answers_are_counted_by_their_keys_and_values(recipe_of_a_config: Path) -> None:
    """Each as long as it may be, while moments of the adapter are held; and passes are of answers, not of records."""
    objective = "{use: grpo, group_size: 64, max_new_tokens: 64}"
    few = ("--set", "training.microbatch_tokens=320", "--set", "training.tokens_per_step=256")
    parts = _stages(recipe_of_a_config, objective, *few, "--set", "data.max_length=256")
    assert parts["cache"] == 3 * 2 * 256 * 4 * 64 * (256 + 64 - 1) and parts["optimizer"] == 2 * parts["adapter"]
    told = _plan(recipe_of_a_config, "--set", f"objective={objective}", "--set", "training.microbatch_tokens=1024")
    assert told["memory"]["pass_sequences"] == 4 and told["memory"]["pass_tokens"] == 1024
    near = _stages(recipe_of_a_config, objective.replace("64}", "64, beta: 0.1}"), *few, "--set", "data.max_length=256")
    assert near.pop("start") == parts["adapter"], "what it is compared with is kept"
    assert all(near[part] == parts[part] for part in parts.keys() - {"program"})


def _stages(recipe: Path, objective: str, *options: str) -> dict[str, int]:
    told = _plan(recipe, "--set", f"objective={objective}", *options)["memory"]
    assert not told["unknown"]
    found: dict[str, int] = next(stage["parts"] for stage in told["stages"] if stage["stage"] == "training")
    return found


def test_a_recipe_is_made_to_fit_by_what_does_least_harm(recipe_of_a_config: Path, tmp_path: Path) -> None:
    whole = _plan(recipe_of_a_config)["memory"]["peak"]["host"]
    little = _plan(recipe_of_a_config, "--memory", f"{whole - 30_000_000}")["fit"]
    assert little["fits"] and [change["key"] for change in little["changes"]] == ["training.microbatch_tokens"]
    out = tmp_path / "fitted.yaml"
    less = _plan(recipe_of_a_config, "--memory", f"{whole - 600_000_000}", "--out", str(out))["fit"]
    keys = [change["key"] for change in less["changes"]]
    assert less["fits"] and keys[:2] == ["training.microbatch_tokens", "memory.checkpoint"], keys
    assert _plan(out)["memory"]["peak"]["host"] <= whole - 580_000_000
    none = _plan(recipe_of_a_config, "--memory", "1MB", "--out", str(tmp_path / "no.yaml"), code=1)["fit"]
    assert not none["fits"] and none["missing"] > 0 and not (tmp_path / "no.yaml").exists()
    assert "are missing after all of these" in none["text"]


@pytest.mark.parametrize("less", ["float32", "bfloat16"])
def test_the_other_dtype_is_taken_where_less_fits_in_it(less: str) -> None:
    """In float32 that is a small model on a CPU, for which bfloat16's kernels take more than its weights."""
    more = {"float32": "bfloat16", "bfloat16": "float32"}[less]

    def forecast_of(asked: Any, bound: BoundRecipe) -> MemoryForecast:
        size = 5 * 10**8 if bound.recipe.training.dtype == less else 10**9
        return MemoryForecast(device="cpu", stages=[StageMemory(stage="training", host=size)])

    recipe = {"model": "m", "data": {"train": "x.jsonl"}, "training": {"dtype": more}}
    found = fit_memory(recipe, [], PluginHost(), lambda bound: cast(Any, bound), MemoryLimits(6 * 10**8), forecast_of)
    assert not found.missing and [change.override for change in found.changes] == [f"training.dtype={less}"]


def test_sizes_are_read_as_they_are_written() -> None:
    assert [parse_size(text) for text in ("8GB", "1.5 GiB", "900MB", "42000000")] == [
        8 * 10**9,
        3 << 29,
        9 * 10**8,
        42 * 10**6,
    ]
    for text in ("", "0GB", "8 gigs", "-1GB", "9" * 400 + "GB", "9" * 5000):
        with pytest.raises(RecipeError, match="no size of a memory"):
            parse_size(text)
    for text, hint in (
        ("8", "Did you mean 8GB?"),
        ("1.5 b", "Did you mean 1.5GB?"),
        ("8KB", "with its unit"),
        ("900000", "with its unit"),
    ):
        with pytest.raises(RecipeError, match=f"'{text}' is a size of") as caught:
            parse_size(text)
        assert hint in caught.value.hint


RUN_AND_PLAN = """
import ctypes, json, sys, types
import graftkit
from graftkit.flow.events import StageStarted
from graftkit.model import memory_back
from graftkit.flow.memory.forecast_memory import forecast_memory
recipe, out, stages, given = json.loads(sys.argv[1]), sys.argv[2], [], []
def trim(pad):
    given.append(stages[-1])
    return ctypes.CDLL(None).malloc_trim(pad)
memory_back.ctypes = types.SimpleNamespace(CDLL=lambda name: types.SimpleNamespace(malloc_trim=trim))
note = lambda event: stages.append(event.stage) if isinstance(event, StageStarted) else None
measured = graftkit.run(recipe, out=out, on_event=note).manifest["memory"]["measured"]["host"]
plan = graftkit.plan(recipe, as_run=True)
forecast = forecast_memory(plan.ask_memory(plan.bound))
told = {stage.stage: stage.host for stage in forecast.stages}
print(json.dumps({"unknown": forecast.unknown, "told": told, "measured": measured, "given": given}))
"""


@pytest.mark.parametrize("objective", ["sft", "classification"])
def test_what_a_run_takes_is_kept_and_was_forecast(
    objective: str, tiny_model: Path, chat_records: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose memory nothing else has filled."""
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps({"text": f"text {n} " * 5, "label": "ab"[n % 2]}) + "\n" for n in range(60)))
    learnt = chat_records if objective == "sft" else labelled
    recipe: dict[str, Any] = {
        "model": str(tiny_model),
        "data": {"train": str(learnt), "holdout": 0.1, "max_length": 64},
        "adapter": {"use": "lora", "rank": 4},
        "objective": objective,
        "training": {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        "evaluation": {"answers": 2, "max_new_tokens": 2} if objective == "sft" else {},
    }
    command = [sys.executable, "-c", RUN_AND_PLAN, json.dumps(recipe), str(tmp_path / "run")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["given"][:3] == ["base model", "adapter", "training"], "when freed memory is given back"
    assert "<h2>Memory</h2>" in (tmp_path / "run" / "report.html").read_text()
    assert not found["unknown"] and found["told"].keys() <= found["measured"].keys()
    assert found["told"]["training"] == pytest.approx(found["measured"]["training"], rel=0.25)
