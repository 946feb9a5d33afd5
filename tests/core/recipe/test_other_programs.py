"""A key that TRL, PEFT, Axolotl, LLaMA-Factory or Unsloth has is told as the recipe's own, or that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit import PluginHost, load_recipe
from graftkit.errors import RecipeError
from graftkit.recipe.bind import bind
from graftkit.recipe.document import parse_value
from graftkit.recipe.other_programs import OTHER_PROGRAMS

RECIPE = {"model": "./m", "data": {"train": "a.jsonl"}}

EXPECTED = {
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.targets",
    "lora_target_modules": "adapter.targets",
    "use_rslora": "adapter.rslora",
    "lr": "training.learning_rate",
    "learning_rate": "training.learning_rate",
    "batch_size": "training.tokens_per_step",
    "per_device_train_batch_size": "training.microbatch_tokens",
    "gradient_accumulation_steps": "training.tokens_per_step",
    "max_seq_length": "data.max_length",
    "sequence_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "max_steps": "training.steps",
    "warmup_ratio": "training.warmup",
    "num_warmup_steps": "training.warmup_steps",
    "load_in_4bit": "quantizer",
    "load_in_8bit": "quantizer",
    "bnb_4bit_quant_type": "quantizer",
    "base_model": "model",
    "model_name_or_path": "model",
    "datasets": "data.train",
    "dataset": "data.train",
    "max_samples": "data.train",
    "val_set_size": "data.holdout",
    "eval_split": "data.holdout",
    "bf16": "training.dtype",
    "fp16": "training.dtype",
    "weight_decay": "training.weight_decay",
    "seed": "training.seed",
    "lr_scheduler_type": "training.schedule",
    "chat_template": "data.chat_template",
    "use_dora": "adapter.dora",
    "modules_to_save": "adapter.modules_to_save",
    "lora_modules_to_save": "adapter.modules_to_save",
    "optim": "training.optimizer",
    "neftune_noise_alpha": "training.neftune_noise_alpha",
    "adam_beta2": "training.beta2",
    "adam_epsilon": "training.epsilon",
    "min_lr_rate": "training.min_lr_ratio",
    "gradient_checkpointing": "memory.checkpoint",
}
WITHOUT = [
    "output_dir",
    "packing",
    "sample_packing",
    "train_on_inputs",
    "assistant_only_loss",
    "completion_only_loss",
]


def refusal(recipe: dict[str, object], host: PluginHost) -> str:
    with pytest.raises(RecipeError) as caught:
        bind(load_recipe(recipe), host)
    return str(caught.value)


@pytest.fixture(scope="module")
def host() -> PluginHost:
    return PluginHost()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_recipes_own_key_is_told(name: str) -> None:
    assert OTHER_PROGRAMS[name].target == EXPECTED[name]


@pytest.mark.parametrize("name", WITHOUT)
def test_why_there_is_no_such_key_is_told(name: str, host: PluginHost) -> None:
    assert f"A recipe has no key for {name}: " in refusal({**RECIPE, name: True}, host)


@pytest.mark.parametrize("name", [name for name, key in OTHER_PROGRAMS.items() if key.target])
def test_what_is_to_be_written_is_a_recipe_that_says_that_key(name: str, host: PluginHost) -> None:
    key = OTHER_PROGRAMS[name]
    written = parse_value(key.write, "the hint")
    at = written
    for part in key.target.split("."):
        at = at[part]
    bound = bind(load_recipe({**RECIPE, **written}), host).resolved()
    for part in key.target.split("."):
        bound = bound[part]
    assert bound not in (None, [], {})


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"adapter": {"use": "lora", "r": 8}}, "r is adapter.rank: write adapter: {use: lora, rank: 16}."),
        ({"training": {"lr": 1e-3}}, "lr is training.learning_rate: write training: {learning_rate: 2e-4}."),
        ({"learning_rate": 1e-3}, "learning_rate is training.learning_rate"),
        (
            {"training": {"num_warmup_steps": 10}},
            "num_warmup_steps is training.warmup_steps: write training: {warmup_steps: 20}",
        ),
        ({"data": {"train": "a.jsonl", "dataset": "b"}}, "dataset is data.train"),
        ({"lora_r": 8, "base_model": "m"}, "2 things are wrong"),
    ],
)
def test_the_hint_stands_wherever_the_key_does(section: dict[str, object], told: str, host: PluginHost) -> None:
    found = refusal({**RECIPE, **section}, host)
    assert told in found and "unknown key" in found and "Known: " not in found


def test_a_key_that_its_own_section_does_not_know_is_not_explained_by_itself(host: PluginHost) -> None:
    assert "double_quant is" not in refusal({**RECIPE, "quantizer": {"use": "int8", "double_quant": True}}, host)


def test_a_recipe_file_says_the_line(tmp_path: Path, host: PluginHost) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: ./m\ndata: {train: a.jsonl}\nmax_seq_length: 512\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}:3" and caught.value.hint.startswith("max_seq_length is data.max_length; ")


@pytest.mark.parametrize(
    ("settings", "program"),
    [
        ("base_model: ./m\ndatasets: [{path: a.jsonl}]\n", "Axolotl"),
        ("model_name_or_path: ./m\nstage: sft\n", "LLaMA-Factory"),
        ("model_name_or_path: ./m\ndataset_name: a.jsonl\n", "TRL"),
        ("model: ./m\ndata: folder\niters: 100\n", "mlx-lm"),
        ("model: ./m\ndataset: a.jsonl\n", "ms-swift"),
    ],
)
def test_another_programs_file_is_told_as_one(settings: str, program: str, tmp_path: Path) -> None:
    path = tmp_path / "a file.yaml"
    path.write_text(settings)
    with pytest.raises(RecipeError, match=f"^{path}: these are settings of {program}, and no recipe") as caught:
        load_recipe(path)
    assert caught.value.hint == f"toolkit init recipe.yaml --from '{path}' converts them."
