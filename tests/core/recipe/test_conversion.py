"""Settings of Axolotl, LLaMA-Factory, TRL, mlx-lm and ms-swift become recipes, and no key of theirs gets lost."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import pytest
from graftkit.errors import GraftkitError
from graftkit.recipe.conversion.convert import convert
from graftkit.recipe.load import load_recipe
from hypothesis import given
from hypothesis import strategies as st

AXOLOTL = {
    "base_model": "org/model",
    "load_in_4bit": True,
    "adapter": "qlora",
    "datasets": [{"path": "org/data", "type": "alpaca", "split": "train"}],
    "val_set_size": 0.05,
    "output_dir": "./out",
    "sequence_len": 2048,
    "sample_packing": True,
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 2,
    "num_epochs": 4.0,
    "optimizer": "paged_adamw_32bit",
    "lr_scheduler": "cosine",
    "learning_rate": 2e-4,
    "bf16": "auto",
    "gradient_checkpointing": True,
    "warmup_ratio": 0.1,
    "saves_per_epoch": 1,
    "weight_decay": 0.0,
    "special_tokens": {"pad_token": "<pad>"},
    "wandb_project": "mine",
}
LLAMA_FACTORY = {
    "model_name_or_path": "org/model",
    "stage": "dpo",
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "q_proj,v_proj",
    "pref_beta": 0.2,
    "pref_loss": "sigmoid",
    "dataset": "pairs, unknown",
    "max_samples": 500,
    "cutoff_len": 1024,
    "template": "qwen",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "num_train_epochs": 0.5,
    "max_steps": 200,
    "warmup_steps": 20,
    "learning_rate": 5e-6,
    "lr_scheduler_type": "constant_with_warmup",
    "fp16": True,
    "save_steps": 50,
    "save_total_limit": 2,
}
TRL = {
    "model_name_or_path": "org/model",
    "dataset_name": "train.jsonl",
    "use_peft": True,
    "lora_r": 16,
    "lora_target_modules": ["q_proj", "k_proj"],
    "load_in_8bit": True,
    "max_length": 512,
    "eval_strategy": "steps",
    "eval_steps": 25,
    "early_stopping_patience": 3,
    "neftune_noise_alpha": 5,
    "max_grad_norm": 0,
}
MLX_LM = {
    "model": "org/model",
    "train": True,
    "fine_tune_type": "lora",
    "optimizer": "adamw",
    "optimizer_config": {"adamw": {"betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": 0.05, "bias_correction": True}},
    "data": "folder",
    "seed": 0,
    "num_layers": -1,
    "batch_size": 4,
    "grad_accumulation_steps": 2,
    "iters": 1000,
    "val_batches": 25,
    "steps_per_report": 10,
    "steps_per_eval": 200,
    "save_every": 100,
    "adapter_path": "adapters",
    "max_seq_length": 1024,
    "grad_checkpoint": True,
    "lora_parameters": {"keys": ["self_attn.q_proj"], "rank": 8, "scale": 2.5, "dropout": 0.1},
    "lr_schedule": {"name": "cosine_decay", "warmup": 100, "arguments": [1e-5, 1000, 1e-7]},
}
MS_SWIFT = {
    "model": "org/model",
    "tuner_type": "lora",
    "dataset": ["train.jsonl#500", "org/data"],
    "val_dataset": "valid.jsonl",
    "torch_dtype": "bfloat16",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1e-4,
    "lora_rank": 8,
    "lora_alpha": 32,
    "lorap_lr_ratio": 16,
    "target_modules": "all-linear",
    "quant_method": "bnb",
    "quant_bits": 4,
    "truncation_strategy": "right",
    "max_length": 2048,
    "rlhf_type": "dpo",
    "beta": 0.2,
    "logging_steps": 5,
    "loss_scale": "default",
}
PROGRAMS = [AXOLOTL, LLAMA_FACTORY, TRL, MLX_LM, MS_SWIFT]
DATA_SETS = {
    "pairs": {
        "file_name": "pairs.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "good", "rejected": "bad"},
    }
}


def test_axolotls_qlora() -> None:
    found = convert(AXOLOTL)
    assert found.program == "Axolotl"
    assert found.recipe == {
        "model": "org/model",
        "data": {
            "train": {"path": "hub:org/data", "format": "alpaca"},
            "holdout": 0.05,
            "max_length": 2048,
            "overflow": "drop",
        },
        "quantizer": {"use": "nf4", "double_quant": True},
        "adapter": {"use": "lora", "rank": 32, "alpha": 16, "dropout": 0.05, "targets": "all-linear"},
        "training": {
            "epochs": 4,
            "tokens_per_step": 2 * 4 * 2048,
            "learning_rate": 2e-4,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup": 0.1,
            "optimizer": "adamw",
            "dtype": "auto",
        },
        "memory": {"checkpoint": "blocks"},
        "export": ["peft"],
        "plugins": {"wandb": {"project": "mine"}},
    }
    assert found.an_epoch == {"training.checkpoint_every": ("saves_per_epoch", 1)} and not found.left
    assert found.without_effect == ["output_dir"]


@pytest.mark.parametrize(
    ("said", "plugins", "left"),
    [
        ({"report_to": "none", "run_name": "x"}, None, {}),
        ({"report_to": ["tensorboard"]}, {"tensorboard": {"folder": "tensorboard"}}, {}),
        ({"use_tensorboard": True}, {"tensorboard": {"folder": "tensorboard"}}, {}),
        ({"report_to": "wandb", "run_name": "x"}, {"wandb": {"project": "huggingface", "name": "x"}}, {}),
        (
            {"report_to": ["wandb", "comet_ml"], "wandb_entity": "us", "wandb_name": "y", "run_name": "x"},
            {"wandb": {"project": "huggingface", "entity": "us", "name": "y"}},
            {"report_to": "callbacks are tensorboard, wandb and mlflow, and those of plugins"},
        ),
        ({"wandb_project": "p", "wandb_mode": "disabled", "report_to": "wandb"}, None, {}),
        ({"wandb_project": "p", "mlflow_experiment_name": "e", "report_to": "none"}, None, {}),
        ({"wandb_project": "p", "report_to": "tensorboard"}, {"tensorboard": {"folder": "tensorboard"}}, {}),
        ({"wandb_project": "p", "use_wandb": False}, None, {}),
        ({"wandb_project": "p", "report_to": None}, {"wandb": {"project": "p"}}, {}),
        (
            {"mlflow_experiment_name": "e", "mlflow_tracking_uri": "http://here:5000"},
            {"mlflow": {"experiment": "e", "tracking_uri": "http://here:5000"}},
            {},
        ),
    ],
)
def test_who_is_told_of_a_run(said: dict[str, Any], plugins: Any, left: dict[str, str]) -> None:
    found = convert({**TRL, **said})
    assert found.recipe.get("plugins") == plugins
    assert found.left == left
    assert {"run_name", "wandb_mode"} & {*found.without_effect} <= {*said}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"roles_to_train": ["assistant"], "train_on_eos": "turn", "chat_template": "tokenizer_default"}, {}),
        ({"roles_to_train": ["user"], "train_on_eos": "last"}, {"roles_to_train": "learnt", "train_on_eos": "turn"}),
        ({"chat_template": "chatml"}, {"chat_template": "data.chat_template"}),
        ({"shards": 4}, {"shards": "own columns"}),
    ],
)
def test_keys_of_an_axolotl_data_set_are_left_for_a_reason_of_their_own(
    said: dict[str, Any], left: dict[str, str]
) -> None:
    found = convert({**AXOLOTL, "saves_per_epoch": None, "datasets": [{"path": "a", "type": "chat_template", **said}]})
    assert found.left.keys() == {f"datasets[0].{key}" for key in left}
    assert all(part in found.left[f"datasets[0].{key}"] for key, part in left.items())


def test_a_rate_that_stays_and_falls_at_the_end() -> None:
    kept = {"num_decay_steps": 50, "num_stable_steps": 140, "decay_type": "linear", "min_lr_ratio": 0.1}
    said = {**TRL, "max_steps": 200, "lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": kept}
    found = convert(said)
    keys = ("schedule", "decay", "decay_type", "min_lr_ratio")
    assert [found.recipe["training"][name] for name in keys] == ["wsd", 0.25, "linear", 0.1]
    assert found.left == {}
    curved = convert({**said, "max_steps": -1, "num_train_epochs": 1.5, "lr_scheduler_kwargs": {"num_decay_steps": 50}})
    assert curved.recipe["training"]["epochs"] == 1.5
    assert set(curved.left) == {"lr_scheduler_kwargs"} and curved.recipe["training"]["decay_type"] == "cosine"


def test_llama_factorys_preferences_and_its_data_sets() -> None:
    found = convert(LLAMA_FACTORY, DATA_SETS)
    assert found.recipe["objective"] == {"use": "dpo", "loss": "sigmoid", "beta": 0.2}
    assert found.recipe["adapter"] == {"use": "lora", "rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]}
    pairs, unknown = found.recipe["data"]["train"]
    assert pairs == {
        "path": "data/pairs.json",
        "format": "preference",
        "columns": {"prompt": "conversations", "chosen": "good", "rejected": "bad"},
        "first": 500,
    }
    assert unknown == {"path": "data/unknown.json", "first": 500} and any(
        "unknown is no name in" in line for line in found.told
    )
    training = found.recipe["training"]
    assert training["steps"] == 200 and "epochs" not in training  # steps win, as they do there
    assert training["warmup_steps"] == 20 and "warmup" not in training and training["schedule"] == "constant"
    assert training["dtype"] == "bfloat16" and any("float16" in line for line in found.told)
    assert training["checkpoint_every"] == 50 and training["keep_checkpoints"] == 2
    assert found.examples_per_step == 8 and "tokens_per_step" not in training
    assert set(found.left) == {"template", "num_train_epochs"}


def test_a_share_that_nobody_named_is_told() -> None:
    found = convert({**TRL, "max_length": None})
    assert "holdout" not in found.recipe["data"] and any("data.holdout" in line for line in found.told)


def test_trls_column_of_texts() -> None:
    found = convert(TRL | {"dataset_text_field": "body"}, is_there=lambda path: True)
    assert found.recipe["data"]["train"] == {"path": "train.jsonl", "columns": {"text": "body"}}


def test_trls_fine_tuning() -> None:
    found = convert(TRL, is_there=lambda path: path == "train.jsonl")
    assert found.recipe["data"]["train"] == "train.jsonl" and found.recipe["data"]["overflow"] == "truncate"
    assert found.recipe["quantizer"] == "int8"
    assert found.recipe["evaluation"] == {"every": 25, "patience": 3}
    assert found.recipe["training"]["max_grad_norm"] > 1e9  # 0 clips nothing there
    assert found.recipe["training"]["neftune_noise_alpha"] == 5 and not found.left


@pytest.mark.parametrize(
    ("settings", "share", "left"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}, 0.1, set()),
        ({"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 2e-5}}, 0.1, set()),
        ({"lr_scheduler": "cosine", "cosine_min_lr_ratio": 0.2}, 0.2, set()),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}, None, {"lr_scheduler_kwargs"}),
        ({"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"min_lr": 2e-5}}, None, {"lr_scheduler_kwargs"}),
        ({"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.2}, None, {"cosine_min_lr_ratio"}),
        ({"cosine_min_lr_ratio": 0.2}, 0.2, set()),
        (
            {"lr_scheduler": "cosine", "learning_rate": 0.0, "lr_scheduler_kwargs": {"min_lr": 0.0}},
            None,
            {"lr_scheduler_kwargs"},
        ),
    ],
)
def test_the_rate_that_a_cosine_falls_to(settings: dict[str, Any], share: float | None, left: set[str]) -> None:
    found = convert({**TRL, "learning_rate": 2e-4, **settings})
    assert found.recipe["training"].get("min_lr_ratio") == share and set(found.left) == left


@pytest.mark.parametrize(
    ("settings", "every", "an_epoch", "left"),
    [
        ({"evals_per_epoch": 4}, None, ("evals_per_epoch", 4), set()),
        ({"eval_strategy": "epoch", "eval_steps": 25}, None, ("eval_strategy", 1), {"eval_steps"}),
        ({"evaluation_strategy": "epoch"}, None, ("evaluation_strategy", 1), set()),
        ({"eval_steps": 25}, 25, None, set()),
        ({"eval_steps": 25, "evals_per_epoch": 0}, 25, None, set()),
        ({"eval_steps": 0.15, "max_steps": 50}, 8, None, set()),
        ({"eval_steps": 0.15}, None, None, {"eval_steps"}),
        ({"eval_strategy": "steps"}, None, None, {"eval_strategy"}),
        ({"evals_per_epoch": 0.5}, None, None, {"evals_per_epoch"}),
    ],
)
def test_how_often_is_measured_in_steps_or_in_epochs(
    settings: dict[str, Any], every: int | None, an_epoch: tuple[str, int] | None, left: set[str]
) -> None:
    plain = {name: value for name, value in TRL.items() if name not in ("eval_strategy", "eval_steps")}
    plain = {**plain, "max_steps": None, "early_stopping_patience": None, **settings}
    found = convert(plain)
    assert found.recipe.get("evaluation", {}).get("every") == every and set(found.left) == left
    assert found.an_epoch.get("evaluation.every") == an_epoch


@pytest.mark.parametrize("said", [{"eval_steps": 50}, {"evals_per_epoch": 4, "early_stopping_patience": 2}])
def test_where_no_record_is_held_out_none_is_measured(said: dict[str, Any]) -> None:
    """As in many of Axolotl's own examples."""
    found = convert({**AXOLOTL, **said, "val_set_size": 0.0})
    assert "evaluation" not in found.recipe and "evaluation.every" not in found.an_epoch
    assert "no record is held out" in found.left[next(iter(said))]


def test_keys_that_are_on_unless_they_are_off() -> None:
    """What is off says something here, and goes by no other rule's silence."""
    assert convert(LLAMA_FACTORY, DATA_SETS).recipe["data"].get("template_arguments") is None
    found = convert({**LLAMA_FACTORY, "enable_thinking": False}, DATA_SETS)
    assert found.recipe["data"]["template_arguments"] == {"enable_thinking": False}
    assert "template_arguments" not in convert({**LLAMA_FACTORY, "enable_thinking": True}, DATA_SETS).recipe["data"]
    quantized = {**LLAMA_FACTORY, "quantization_bit": 4}
    for said, scales in (({}, True), ({"double_quantization": False}, False), ({"double_quantization": True}, True)):
        assert convert(quantized | said, DATA_SETS).recipe["quantizer"] == {"use": "nf4", "double_quant": scales}
    assert "completion_only_loss" in convert({**TRL, "completion_only_loss": False}).left
    given = convert({**TRL, "chat_template_kwargs": {"effort": "low"}}).recipe["data"]
    assert given["template_arguments"] == {"effort": "low"}


@pytest.mark.parametrize(
    ("name", "given", "said", "left"),
    [
        ("cosine_with_restarts", {"num_cycles": 3}, {"cycles": 3}, set()),
        ("cosine_with_restarts", None, {"cycles": 1}, set()),
        ("polynomial", {"power": 2, "lr_end": 2e-5}, {"power": 2, "min_lr_ratio": 0.1}, set()),
        ("polynomial", '{"power": 2}', {"power": 2}, set()),
        ("polynomial", {"power": 0, "lr_end": 1}, {}, {"lr_scheduler_kwargs"}),
        ("inverse_sqrt", {"timescale": 100}, {"timescale": 100}, set()),
        ("inverse_sqrt", {"timescale": 100, "min_lr": 1e-5}, {"timescale": 100}, {"lr_scheduler_kwargs"}),
        ("inverse_sqrt", "timescale=100", {}, {"lr_scheduler_kwargs"}),
        ("constant", {"min_lr": 1e-5}, {}, {"lr_scheduler_kwargs"}),
    ],
)
def test_other_schedules(name: str, given: object, said: dict[str, Any], left: set[str]) -> None:
    found = convert({**TRL, "learning_rate": 2e-4, "lr_scheduler_type": name, "lr_scheduler_kwargs": given})
    keys = ("cycles", "power", "timescale", "min_lr_ratio", "decay", "decay_type")
    assert found.recipe["training"]["schedule"] == name and set(found.left) == left
    assert {key: value for key, value in found.recipe["training"].items() if key in keys} == said
    assert bool(name == "cosine_with_restarts" and not given) == any("never starts anew" in line for line in found.told)


def test_adams_settings() -> None:
    found = convert({**TRL, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6})
    assert {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}.items() <= found.recipe["training"].items()


@pytest.mark.parametrize(
    ("settings", "section", "said"),
    [
        ({"adapter": None}, "adapter", {"use": "full"}),
        ({"adapter": None}, "export", ["merged"]),
        ({"adapter": "lora", "load_in_4bit": None}, "quantizer", "none"),
        ({"rl": "ipo", "rl_beta": 0.5}, "objective", {"use": "dpo", "loss": "ipo", "beta": 0.5}),
        ({"rl": "kto", "kto_desirable_weight": 2.0}, "objective", {"use": "kto", "wanted_weight": 2.0}),
        ({"reward_model": True}, "objective", "reward"),
        ({"tokens": ["<a>", "<b>"]}, "tokenizer", {"extend": {"tokens": 0, "words": ["<a>", "<b>"]}}),
        ({"optimizer": "adamw_bnb_8bit"}, "training.optimizer", "adamw-8bit"),
        ({"optimizer": "lion_8bit"}, "training.optimizer", "lion"),
        ({"optimizer": "adafactor"}, "training.optimizer", "adafactor"),
        ({"optimizer": "muon"}, "training.optimizer", "muon"),
        ({"use_muon": True}, "training.optimizer", "muon"),
        ({"lora_modules_to_save": ["lm_head", "norm"]}, "adapter.modules_to_save", ["lm_head", "norm"]),
        ({"warmup_ratio": None, "warmup_steps": 0}, "training.warmup", 0.0),
        ({"datasets": [{"path": "json", "data_files": "a.jsonl"}]}, "data.train", "a.jsonl"),
        ({"test_datasets": [{"path": "o/d", "split": "test"}]}, "data.holdout", {"path": "hub:o/d", "split": "test"}),
        ({"test_datasets": [{"path": "o/d"}, {"path": "o/e"}]}, "data.holdout", ["hub:o/d", "hub:o/e"]),
        ({"excess_length_strategy": "truncate"}, "data.overflow", "truncate"),
        ({"excess_length_strategy": "raise"}, "data.overflow", "error"),
        (
            {"datasets": [{"path": "o/d", "split": "train[:1000]"}]},
            "data.train",
            {"path": "hub:o/d", "first": 1000},
        ),
        (
            {"datasets": [{"path": "o/d", "type": "chat_template", "field_messages": "talk", "split": "dev"}]},
            "data.train",
            {"path": "hub:o/d", "split": "dev", "format": "messages", "columns": {"messages": "talk"}},
        ),
    ],
)
def test_keys_of_several_meanings(settings: dict[str, Any], section: str, said: object) -> None:
    here: Any = convert(AXOLOTL | settings).recipe
    for name in section.split("."):
        here = here[name]
    assert here == said


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"optimizer": "grokadamw"}, {"optimizer"}),
        ({"optimizer": "galore_adamw_8bit"}, {"optimizer"}),
        ({"lr_scheduler": "reduce_lr_on_plateau"}, {"lr_scheduler"}),
        ({"lora_target_linear": None, "lora_target_modules": "model.layers.[0-9]+.q"}, {"lora_target_modules"}),
        ({"lora_modules_to_save": {"lm_head": 1}}, {"lora_modules_to_save"}),
        ({"lora_modules_to_save": ["lm_head"], "tokens": ["<a>"]}, {"lora_modules_to_save"}),
        ({"num_epochs": 20_000}, {"num_epochs"}),
        ({"bnb_4bit_quant_type": "fp4"}, {"bnb_4bit_quant_type"}),
        ({"quantization_method": "hqq"}, {"quantization_method"}),
        (
            {"datasets": [{"path": "o/d", "type": "chat_template", "message_field_role": "speaker"}]},
            {"datasets[0].role"},
        ),
        ({"val_set_size": 200}, {"val_set_size"}),
        ({"a_key_of_tomorrow": 1}, {"a_key_of_tomorrow"}),
        ({"datasets": [{"path": "o/d", "type": "x.load_y"}]}, {"datasets[0].type"}),
        ({"datasets": [{"path": "o/d", "split": "train[:10%]"}]}, {"datasets[0].split"}),
        ({"datasets": [{"path": "o/d", "split": "train[9:]"}]}, {"datasets[0].split"}),
        ({"datasets": [{"path": "o/d"}, {"name": "o/e"}, "o/f"]}, {"datasets[1]", "datasets[2]"}),
        ({"test_datasets": [{"path": "o/d"}, {"split": "test"}]}, {"test_datasets[1]", "val_set_size"}),
        ({"eval_dataset": "o/d"}, {"eval_dataset"}),
        ({"excess_length_strategy": "split"}, {"excess_length_strategy"}),
        ({"save_steps": 0.1}, {"save_steps"}),
        ({"bnb_4bit_compute_dtype": "float16"}, {"bnb_4bit_compute_dtype"}),
        ({"lora_rank": 8}, {"lora_rank"}),  # lora_r says 32
    ],
)
def test_what_a_recipe_cannot_say_is_named_with_a_reason(settings: dict[str, Any], names: set[str]) -> None:
    left = convert(AXOLOTL | settings).left
    assert names <= set(left) and all(left.values())


def test_settings_of_another_objective_that_the_file_does_not_name_are_told() -> None:
    """TRL's trainers are chosen by the program that reads the file."""
    left = convert(TRL | {"beta": 0.1, "desirable_weight": 1.5}).left
    assert {"beta", "desirable_weight"} <= left.keys() and "say another: objective: dpo" in left["beta"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "m"}, "no settings of Axolotl"),
        ({"base_model": "m"}, "name no records"),
        (AXOLOTL | {"rl": "grpo"}, r"grpo can't be converted(.|\n)*Here they are metrics"),
        (TRL | {"reward_funcs": ["accuracy_reward"]}, r"grpo can't be converted(.|\n)*Here they are metrics"),
        (TRL | {"num_generations": 4, "loss_type": "dr_grpo"}, r"grpo can't be converted"),
        (AXOLOTL | {"sequence_len": "long"}, "sequence_len is no whole number"),
        (AXOLOTL | {"micro_batch_size": [2]}, "micro_batch_size is no whole number"),
    ],
)
def test_what_can_be_no_recipe_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftkitError, match=message):
        convert(settings)


def test_mlx_lms_adapter_and_schedule() -> None:
    """Its alpha is scale times rank, and it counts passes, of which two are a step here."""
    found = convert(MLX_LM, is_there=lambda path: path.startswith("folder"))
    assert found.program == "mlx-lm" and found.left == {} and found.examples_per_step == 8
    assert found.recipe == {
        "model": "org/model",
        "data": {
            "train": "folder/train.jsonl",
            "holdout": "folder/valid.jsonl",
            "max_length": 1024,
            "overflow": "truncate",
        },
        "quantizer": "none",
        "adapter": {"use": "lora", "rank": 8, "alpha": 20.0, "dropout": 0.1, "targets": ["*.self_attn.q_proj"]},
        "training": {
            "steps": 500,
            "learning_rate": 1e-5,
            "min_lr_ratio": 0.01,
            "weight_decay": 0.05,
            "beta1": 0.9,
            "beta2": 0.98,
            "epsilon": 1e-6,
            "seed": 0,
            "schedule": "cosine",
            "warmup_steps": 100,
            "optimizer": "adamw",
            "checkpoint_every": 50,
        },
        "memory": {"checkpoint": "blocks"},
        "evaluation": {"sample": 100, "every": 100},
        "export": ["mlx-lora"],
    }
    assert [told.partition(":")[0] for told in found.told] == ["training.schedule", "data.train"]


@pytest.mark.parametrize(
    ("said", "recipe"),
    [
        ({"fine_tune_type": "dora"}, {"use": "lora", "dora": True, "targets": ["*.self_attn.q_proj"]}),
        ({"fine_tune_type": "full", "lora_parameters": None}, {"use": "full"}),
    ],
)
def test_mlx_lms_methods(said: dict[str, Any], recipe: dict[str, Any]) -> None:
    found = convert({**MLX_LM, **said})
    assert recipe.items() <= found.recipe["adapter"].items()
    assert found.recipe["export"] == ["mlx" if "full" in recipe.values() else "mlx-lora"]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"num_layers": 16}, "num_layers"),
        ({"lora_parameters": {"rank": 8, "alpha": 16}}, "lora_parameters.alpha"),
        ({"lr_schedule": {"name": "step_decay", "arguments": [1e-5, 0.9, 10]}}, "lr_schedule.name"),
        ({"optimizer": "sgd", "optimizer_config": {"sgd": {"momentum": 0.5}}}, "optimizer_config.momentum"),
        ({"resume_adapter_file": "adapters.safetensors"}, "resume_adapter_file"),
        ({"test": True}, "test"),
    ],
)
def test_what_mlx_lm_says_and_a_recipe_does_not_is_named_as_its_file_spells_it(said: dict[str, Any], left: str) -> None:
    assert left in convert({**MLX_LM, **said}).left


def test_mlx_lms_data_set_of_the_hub() -> None:
    of_hub = {"path": "org/data", "train_split": "train[:100]", "prompt_feature": "q", "completion_feature": "a"}
    found = convert({**MLX_LM, "data": None, "hf_dataset": of_hub})
    columns = {"question": "q", "answer": "a"}
    expected = {"path": "hub:org/data", "format": "question-answer", "columns": columns, "first": 100}
    assert found.recipe["data"]["train"] == expected


def test_ms_swifts_preferences() -> None:
    found = convert(MS_SWIFT, is_there=lambda path: path.endswith(".jsonl"))
    assert found.program == "ms-swift" and found.left == {} and found.examples_per_step == 16
    assert found.recipe == {
        "model": "org/model",
        "data": {
            "train": [{"path": "train.jsonl", "first": 500}, "hub:org/data"],
            "holdout": "valid.jsonl",
            "max_length": 2048,
            "overflow": "truncate",
        },
        "quantizer": {"use": "nf4", "double_quant": True},
        "adapter": {"use": "lora", "rank": 8, "alpha": 32, "lora_plus_ratio": 16, "targets": "all-linear"},
        "objective": {"use": "dpo", "beta": 0.2},
        "training": {"epochs": 1, "learning_rate": 1e-4, "dtype": "bfloat16"},
        "export": ["peft"],
    }
    assert found.told == ["data.train: a name is looked for on Hugging Face's hub, not on ModelScope's"]


@pytest.mark.parametrize(("strategy", "overflow"), [("delete", "drop"), (None, "drop"), ("raise", "error")])
def test_what_ms_swift_does_with_long_examples(strategy: str | None, overflow: str) -> None:
    found = convert({**MS_SWIFT, "truncation_strategy": strategy})
    assert found.recipe["data"]["overflow"] == overflow and found.left == {}
    assert "truncation_strategy" in convert({**MS_SWIFT, "truncation_strategy": "left"}).left


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(
        [0.5, math.inf, "", "x", "a/b", "all", "8", [], ["q_proj"], [1], {}, {"path": "a/b"}, [{"path": 3}]]
    ),
)
KEYS = sorted(
    {*(key for program in PROGRAMS for key in program), "rl", "rl_beta", "tokens", "loss_type", "eval_dataset", "dtype"}
)


def test_plugins_that_bring_kernels_alone_are_left_out_unsaid() -> None:
    integrations = "axolotl.integrations"
    kernels = [f"{integrations}.liger.LigerPlugin", f"{integrations}.cut_cross_entropy.CutCrossEntropyPlugin"]
    assert convert({**AXOLOTL, "plugins": kernels, "cut_cross_entropy": True}).left == {}
    others = [*kernels, f"{integrations}.spectrum.SpectrumPlugin"]
    assert convert({**AXOLOTL, "plugins": others}).left == {"plugins": "plugins of graftkit are installed packages"}


@given(
    st.sampled_from(PROGRAMS),
    st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=8),
    st.dictionaries(st.sampled_from(["type", "split", "data_files", "message_property_mappings"]), ANYTHING),
)
def test_whatever_a_key_holds_it_is_converted_named_or_refused(
    program: dict[str, Any], changes: dict[str, Any], data_set: dict[str, Any]
) -> None:
    settings = {**program, "datasets": [{"path": "a/b", **data_set}], **changes}
    try:
        found = convert(settings, {"pairs": data_set})
    except GraftkitError:
        return
    assert found.recipe["model"] and found.recipe["data"]["train"]


OTHER_SPELLINGS = [
    *("cutoff_len", "max_seq_length", "num_epochs", "optim", "packing", "per_device_train_batch_size", "warmup_ratio"),
    *("load_in_4bit", "quantization_bit", "double_quantization", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"),
    *("target_modules", "lora_target_linear", "init_lora_weights", "pissa_init", "adapter", "pure_bf16", "torch_dtype"),
    *("save_strategy", "eval_sample_packing", "test_datasets", "added_tokens", "datasets", "dpo_loss_type"),
    *("excess_length_strategy", "pretraining_dataset", "validation_file", "dataset_test_split", "val_size"),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_key_is_passed_over_in_silence(program: dict[str, Any]) -> None:
    """A value that says something changes the recipe, is told, left, without effect, or refused."""
    doubled = {"load_in_4bit", "double_quantization", "bnb_4bit_use_double_quant"}
    said_already = {"lora_target_linear", "bf16", "pure_bf16"} if program is MS_SWIFT else set()
    by_default = said_already | (doubled if program in (AXOLOTL, MS_SWIFT) else set())
    silent = []
    for key in {*KEYS, *OTHER_SPELLINGS} - by_default:
        rest = {name: said for name, said in program.items() if name != key}
        for value in (7, 0.3, "x", ["q_proj"], {"a": 1}):
            with suppress(GraftkitError):
                if convert(rest | {key: value}, DATA_SETS) == convert(rest, DATA_SETS):
                    silent.append((key, value))
    assert not silent


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_comes_out_is_a_recipe(program: dict[str, Any]) -> None:
    assert load_recipe(convert(program, DATA_SETS).recipe).recipe.model.path == "org/model"


@pytest.mark.parametrize("key", ["dataset", "lora_target", "add_tokens"])
def test_a_list_of_spaces_is_taken_apart_in_a_time_that_grows_with_its_length(key: str) -> None:
    settings = {"model_name_or_path": "org/model", "dataset": "a", "stage": "sft", key: "a , b" + " " * 500_000 + "x"}
    begun = time.process_time()
    found = convert(settings)
    assert found.recipe["model"] == "org/model"
    assert time.process_time() - begun < 3
