"""A recipe of what a file tells Axolotl, LLaMA-Factory or TRL.

What their keys mean is read from their own documentation and argument classes. A key is converted where the recipe has
one of the same meaning, or one whose difference can be said in a sentence; every other key that is set is named with
the reason. What the file leaves out is graftkit's own choice, not the other program's default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from graftkit.errors import RecipeError
from graftkit.recipe.conversion.data import converted_data
from graftkit.recipe.conversion.draft import Draft, Program, is_count, is_number, program_of, split_at_commas
from graftkit.recipe.conversion.unconverted import changes_nothing, why_not

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of another program's file.

    Attributes:
        program: Whose it is.
        recipe: The recipe's sections.
        told: Where a key's meaning differs, and what was chosen.
        left: Keys that are not converted -> why.
        without_effect: Keys that change nothing of what is learnt.
        examples_per_step: How many examples an optimizer step has, where the file counts examples; the recipe's
            `training.tokens_per_step`, which counts tokens, is left out then.
        an_epoch: Keys of the recipe that count steps, such as `evaluation.every`, where the file says how often an
            epoch: which of its keys does, and how often. They are left out of the recipe then.
    """

    program: Program
    recipe: Mapping[str, Any]
    told: Sequence[str]
    left: Mapping[str, str]
    without_effect: Sequence[str]
    examples_per_step: int | None
    an_epoch: Mapping[str, tuple[str, int]]


def convert(
    settings: Mapping[str, Any],
    data_sets: Mapping[str, Any] | None = None,
    *,
    is_there: Callable[[str], bool] = lambda path: False,
) -> Conversion:
    """Makes a recipe of another program's settings.

    Args:
        settings: What its file says.
        data_sets: What LLaMA-Factory's dataset_info.json says.
        is_there: Whether a path leads to something; other names of data sets are looked for on the hub.

    Raises:
        RecipeError: The settings are of no program that is known, or name no model or no records.

    Example:
        >>> found = convert({"base_model": "org/model", "datasets": [{"path": "org/data"}], "learning_rate": 2e-4})
        >>> found.recipe["training"]
        {'learning_rate': 0.0002}
    """
    draft = Draft(program_of(settings), dict(settings))
    for part in _PARTS:
        part(draft)
    draft.recipe["data"] = converted_data(draft, data_sets or {}, is_there) | draft.recipe.get("data", {})
    if draft.recipe["data"].get("holdout") == 0:
        _measure_nothing(draft)
    without_effect = {name: draft.take(name) for name in sorted(draft.settings) if changes_nothing(name)}
    for name in list(draft.settings):
        draft.leave(name, draft.take(name), why_not(name))
    return Conversion(
        draft.program,
        {name: draft.recipe[name] for name in _ORDER if name in draft.recipe},
        draft.told,
        draft.left,
        [name for name, value in without_effect.items() if value is not None],
        draft.examples_per_step,
        draft.an_epoch,
    )


def _model(draft: Draft) -> None:
    model = draft.take("base_model", "model_name_or_path")
    if not isinstance(model, str):
        raise RecipeError(f"the settings of {draft.program} name no model")
    draft.put("model", model)


def _method(draft: Draft) -> None:
    said = draft.take("adapter", "finetuning_type", "use_peft")
    by_default = "lora" if draft.program == "LLaMA-Factory" else "full"
    name = by_default if said is None else "lora" if said is True or said == "qlora" else str(said)
    if name not in ("lora", "full"):
        draft.leave("adapter", name, f"the recipe says lora in place of {name}")
        name = "lora"
    draft.put("adapter.use", name)
    if name == "full":
        draft.told.append(
            "adapter: full trains the linear layers; norms and embeddings stay frozen unless adapter.modules_to_save "
            "names them"
        )
    _quantizer(draft, said)


def _quantizer(draft: Draft, method: object) -> None:
    bits = draft.take("quantization_bit")
    four, eight = draft.take("load_in_4bit"), draft.take("load_in_8bit")
    single = draft.is_off("double_quantization", "bnb_4bit_use_double_quant")
    double = draft.take("double_quantization", "bnb_4bit_use_double_quant", "use_bnb_nested_quant")
    kind, method_of = draft.take("bnb_4bit_quant_type"), draft.take("quantization_method")
    if kind != "nf4":
        draft.leave("bnb_4bit_quant_type", kind, "4 bits are nf4's")
    if method_of not in ("bnb", "bitsandbytes"):
        draft.leave("quantization_method", method_of, "quantizers are nf4, int8, none and stored")
    if four or bits == 4 or (method == "qlora" and not eight):
        # Axolotl and LLaMA-Factory quantize the scales, too, unless they are told otherwise; TRL where it is told.
        scales = bool(double) if draft.program == "TRL" else not single
        draft.put("quantizer", {"use": "nf4", "double_quant": scales})
        draft.leave("load_in_8bit", eight, "weights are stored in 4 bits")
        draft.leave("quantization_bit", bits if bits != 4 else None, "weights are stored in 4 bits")
        return
    draft.leave("double_quantization", double, "nf4's scales alone are quantized")
    if eight or bits == 8:
        draft.put("quantizer", "int8")
    else:
        draft.put("quantizer", "none")
    draft.leave("quantization_bit", bits if bits != 8 else None, "nf4 has 4 bits, int8 has 8")


def _adapter(draft: Draft) -> None:
    if draft.recipe["adapter"]["use"] == "full":
        for name in [name for name in draft.settings if name.startswith(("lora_", "peft_"))]:
            draft.leave(name, draft.take(name), "no adapter is trained, but the linear layers themselves")
        return
    for key, names in _LORA.items():
        value = draft.take(*names)
        if value is not None:
            draft.put(f"adapter.{key}", value)
    rank = draft.recipe["adapter"].get("rank")
    if draft.program == "LLaMA-Factory" and isinstance(rank, int):  # whose alpha is twice the rank
        draft.recipe["adapter"].setdefault("alpha", 2 * rank)
    start = draft.take("peft_init_lora_weights", "init_lora_weights")
    if draft.take("pissa_init"):
        start = "pissa"
    if start in ("pissa", "olora", "gaussian", "orthogonal"):
        draft.put("adapter.init", start)
    elif start is not True:
        draft.leave("peft_init_lora_weights", start, "adapter.init is kaiming, gaussian, orthogonal, pissa or olora")
    _targets(draft)


def _targets(draft: Draft) -> None:
    everything = draft.take("lora_target_linear")
    named = draft.take("lora_target_modules", "lora_target", "target_modules")
    names = split_at_commas(named) if isinstance(named, str) else named
    if everything or named in ("all", "all-linear"):
        draft.put("adapter.targets", "all-linear")
        if named not in ("all", "all-linear"):
            draft.leave("lora_target_modules", named, "lora_target_linear takes all linear layers")
    elif isinstance(names, list) and all(isinstance(name, str) and re.fullmatch(r"[\w.*-]+", name) for name in names):
        draft.put("adapter.targets", names)
    else:
        draft.leave("lora_target_modules", named, "adapter.targets takes names and patterns such as *.self_attn.*")


def _whole_modules(draft: Draft) -> None:
    named = draft.take("lora_modules_to_save", "modules_to_save", "additional_target")
    names = split_at_commas(named) if isinstance(named, str) else named
    if "tokenizer" in draft.recipe:
        draft.leave("modules_to_save", named, "the rows of added tokens are trained anyway, and no others then")
    elif isinstance(names, list) and all(isinstance(name, str) for name in names):
        draft.put("adapter.modules_to_save", names)
    else:
        draft.leave("modules_to_save", named, "adapter.modules_to_save takes names of modules")


def _length(draft: Draft) -> None:
    length = draft.count("sequence_len", "cutoff_len", "max_length", "max_seq_length")
    if length is not None:
        draft.put("data.max_length", length)
    said = draft.take("excess_length_strategy") or ("drop" if draft.program == "Axolotl" else "truncate")
    overflow = {"drop": "drop", "truncate": "truncate", "raise": "error"}.get(str(said), "drop")
    draft.put("data.overflow", overflow)
    if overflow != said and said != "raise":
        draft.leave("excess_length_strategy", said, "data.overflow is drop, truncate, error or drop_turns")


def _duration(draft: Draft) -> None:
    steps, epochs = draft.take("max_steps"), draft.take("num_epochs", "num_train_epochs")
    if is_count(steps):
        draft.put("training.steps", steps)
        draft.leave("num_train_epochs", epochs, "max_steps says how long")
        return
    if steps != -1:  # which says nothing
        draft.leave("max_steps", steps, "training.steps is a whole number")
    if is_number(epochs) and 0 < epochs <= 10_000:
        draft.put("training.epochs", int(epochs) if epochs == int(epochs) else epochs)
    else:
        draft.leave("num_train_epochs", epochs, "training.epochs is a number up to 10,000; say training.steps")


def _batch(draft: Draft) -> None:
    size = draft.count("micro_batch_size", "per_device_train_batch_size")
    passes = draft.count("gradient_accumulation_steps")
    packed = draft.take("sample_packing", "packing")
    length = draft.recipe.get("data", {}).get("max_length")
    counted = size is not None or passes is not None
    if packed and not (counted and length):
        draft.told.append("packing: examples lie side by side without padding, and none attends to another")
    if not counted:
        return
    examples = (size or 1) * (passes or 1)
    if packed and length:
        draft.put("training.tokens_per_step", examples * length)
        draft.told.append(
            f"training.tokens_per_step counts tokens: {examples} packed sequences of {length}, on one device; with "
            "several, multiply by their number"
        )
    else:
        draft.examples_per_step = examples


def _rate(draft: Draft) -> None:
    for key, names in _TRAINING.items():
        value = draft.take(*names)
        if value is not None:
            draft.put(f"training.{key}", value)
    if draft.recipe.get("training", {}).get("max_grad_norm") == 0:  # no gradient is clipped
        draft.put("training.max_grad_norm", 1e12)
    schedule = draft.take("lr_scheduler", "lr_scheduler_type")
    named = _SCHEDULES.get(str(schedule))
    if named:
        draft.put("training.schedule", named)
    else:
        draft.leave("lr_scheduler_type", schedule, f"training.schedule is {', '.join(sorted({*_SCHEDULES.values()}))}")
    if schedule == "cosine_warmup_with_min_lr":
        draft.told.append(
            "training.schedule: after the warm-up each step has the rate that its program gives the step before"
        )
    _end_of_schedule(draft, schedule)
    _warmup(draft, schedule)


def _end_of_schedule(draft: Draft, schedule: object) -> None:
    """Converts along which curve the rate falls, in how many steps, and to what: a share of the highest, or a rate."""
    share, given = draft.take("cosine_min_lr_ratio"), _schedule_arguments(draft)
    training = draft.recipe.get("training", {})
    named = training.get("schedule")
    if share is not None and named != "cosine" and schedule is not None:  # unsaid, its program takes a cosine
        draft.leave("cosine_min_lr_ratio", share, "training.min_lr_ratio is what a cosine falls to")
        share = None
    if share is not None:
        draft.put("training.min_lr_ratio", share)
    for theirs, key, convert_one in _OF_SCHEDULE.get(str(named), ()):
        value = convert_one(given.get(theirs), training)
        if value is not None:
            draft.put(f"training.{key}", value)
            del given[theirs]
    if named == "cosine_with_restarts" and "cycles" not in training:
        draft.put("training.cycles", 1)
        draft.told.append("training.cycles: 1, as its program takes where nothing is said, never starts anew")
    if named == "wsd":
        given.pop("num_stable_steps", None)  # all that the others leave
        if given.get("warmup_type") == "linear":
            del given["warmup_type"]
        if "decay_type" not in training:
            draft.put("training.decay_type", "cosine")  # as its program takes where nothing is said
    draft.leave("lr_scheduler_kwargs", given, f"training has no key for {', '.join(map(str, given))} here")


def _schedule_arguments(draft: Draft) -> dict[str, Any]:
    """Takes what a file gives its schedule, a mapping or the text of one."""
    given = draft.take("lr_scheduler_kwargs")
    if isinstance(given, str):
        with suppress(ValueError):
            given = json.loads(given)
    if isinstance(given, dict):
        return dict(given)
    draft.leave("lr_scheduler_kwargs", given, "it is no mapping")
    return {}


def _as_share(value: object, training: Mapping[str, Any]) -> float | None:
    return value if is_number(value) and 0 <= value <= 1 else None


def _as_share_of_peak(value: object, training: Mapping[str, Any]) -> float | None:
    peak = training.get("learning_rate")
    return round(value / peak, 9) if is_number(value) and is_number(peak) and 0 <= value <= peak and peak else None


def _as_share_of_steps(value: object, training: Mapping[str, Any]) -> float | None:
    steps = training.get("steps")
    if not (is_count(value) and is_count(steps)):
        return None
    share: float = value / steps  # type: ignore[operator]
    return round(share, 9) if share <= 1 else None


def _as_count(value: object, training: Mapping[str, Any]) -> object:
    return value if is_count(value) else None


def _as_power(value: object, training: Mapping[str, Any]) -> float | None:
    return value if is_number(value) and 0 < value <= 100 else None


def _as_curve(value: object, training: Mapping[str, Any]) -> object:
    return value if value in ("linear", "cosine", "1-sqrt") else None


def _warmup(draft: Draft, schedule: object) -> None:
    share, steps = draft.take("warmup_ratio"), draft.take("warmup_steps")
    if steps:
        draft.leave("warmup_ratio", share, "warmup_steps says how long")
    if isinstance(steps, float) and 0 < steps < 1:
        share = steps
    elif is_count(steps):
        draft.put("training.warmup_steps", steps)
        return
    elif steps:
        draft.leave("warmup_steps", steps, "training.warmup_steps is a whole number")
    if share is not None or steps == 0 or schedule == "constant":
        draft.put("training.warmup", share or 0.0)


def _optimizer(draft: Draft) -> None:
    name = draft.take("optimizer", "optim")
    if draft.take("use_muon"):
        draft.leave("optim", name, "use_muon says which")
        name = "muon"
    if name is None:
        return
    ours = next((ours for ours, theirs in _OPTIMIZERS.items() if name in theirs), None)
    if ours is None:
        draft.leave("optim", name, f"training.optimizer is {', '.join(_OPTIMIZERS)}")
        return
    draft.put("training.optimizer", ours)
    if ours == "lion" and "8bit" in str(name):
        draft.told.append("training.optimizer: lion keeps its mean of the gradient in 32 bits, not in 8")


def _precision(draft: Draft) -> None:
    said = "bf16" in draft.settings
    halves, weights = draft.take("bf16", "pure_bf16", "bfloat16"), draft.take("dtype", "torch_dtype")
    if draft.take("fp16", "float16"):
        dtype = "bfloat16"
        draft.told.append("training.dtype: bfloat16 in place of float16, which a recipe does not have")
        draft.leave("bf16", halves, "fp16 says the type of the computation")
    elif halves:
        dtype = "auto" if halves == "auto" else "bfloat16"
    elif weights in ("auto", "bfloat16", "float32"):
        dtype = str(weights)
    elif said:
        dtype = "float32"
    else:
        draft.leave("dtype", weights, "training.dtype is auto, bfloat16 or float32")
        return
    draft.put("training.dtype", dtype)
    if weights not in (dtype, "auto"):
        draft.leave("dtype", weights, f"the computation is in {dtype}")


def _memory(draft: Draft) -> None:
    recomputed = draft.take("gradient_checkpointing")
    offloaded = draft.take("activation_offloading")
    if recomputed or offloaded:
        draft.put("memory.checkpoint", "blocks")
    if recomputed == "offload" or offloaded:
        draft.put("memory.offload", True)


def _evaluation(draft: Draft) -> None:
    if _says_how_often(
        draft, "evaluation.every", "eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy"
    ):
        patience = draft.take("early_stopping_patience")
        if patience:
            draft.put("evaluation.patience", patience)
        if draft.take("load_best_model_at_end"):
            draft.put("evaluation.exported", "best")
    if _says_how_often(draft, "training.checkpoint_every", "save_steps", "saves_per_epoch", "save_strategy"):
        kept = draft.take("save_total_limit")
        if kept:
            draft.put("training.keep_checkpoints", kept)


def _measure_nothing(draft: Draft) -> None:
    """Leaves out when records are measured of which none is held out."""
    name, _ = draft.an_epoch.pop("evaluation.every", ("eval_steps", 0))
    if draft.recipe.pop("evaluation", None) or name != "eval_steps":
        draft.left[name] = "no record is held out; say data.holdout, a share or a file"


def _says_how_often(draft: Draft, key: str, every: str, per_epoch: str, *strategies: str) -> bool:
    """Converts how often something is done again; tells whether the file says that.

    Args:
        draft: The recipe so far.
        key: The recipe's key, which counts steps.
        every: The key that says after how many steps, or after which share of all.
        per_epoch: The key that says how many times an epoch.
        strategies: The keys that say which of both, or once an epoch.
    """
    strategy, steps, times = draft.take(*strategies), draft.take(every), draft.take(per_epoch)
    name = per_epoch
    if times is None and strategy == "epoch":
        name, times, strategy = draft.spelt(strategies[0]), 1, None
    if is_count(times):
        draft.an_epoch[key] = (name, times)
        draft.leave(every, steps, f"{name} says how often")
        draft.leave(strategies[0], strategy, f"{name} says how often")
        return True
    why, total = f"{key} is a number of steps", draft.recipe.get("training", {}).get("steps")
    draft.leave(per_epoch, times, why)
    if isinstance(steps, float) and 0 < steps < 1 and is_count(total):
        steps = math.ceil(steps * total)
    draft.leave(strategies[0], strategy if strategy != "steps" or not steps else None, why)
    if is_count(steps):
        draft.put(key, steps)
        return True
    draft.leave(every, steps, why)
    return False


_REWARDED = frozenset({"reward_funcs", "num_generations"})
"""What settings have that learn from rewards: which of its trainers a file of TRL's is for it does not say."""

_OF_OTHER_OBJECTIVES = ("beta", "desirable_weight", "undesirable_weight", "center_rewards_coefficient")


def _objective(draft: Draft) -> None:
    name = draft.take("rl", "stage") or ("reward" if draft.take("reward_model") else None)
    loss = draft.take("pref_loss", "loss_type", "dpo_loss_type")
    if name == "dpo" and loss in ("orpo", "simpo"):
        name, loss = loss, None
    if name == "ipo":
        name, loss = "dpo", "ipo"
    if name is None and loss in _DPO_LOSSES:
        name = "dpo"
    if name is None and not _REWARDED.isdisjoint(draft.settings):
        name = "grpo"
    name = {"rm": "reward", "pt": "sft"}.get(str(name), name)
    if name is None or name == "sft":
        draft.leave("loss_type", None if loss == "nll" else loss, "sft's loss is the cross-entropy")
        for key in _OF_OTHER_OBJECTIVES:
            draft.leave(key, draft.take(key), "the objective is sft; say another: objective: dpo")
        return
    if not isinstance(name, str) or name not in _OBJECTIVES:
        raise RecipeError(
            f"{name} can't be converted: objectives are sft, {', '.join(_OBJECTIVES)}",
            hint="Its rewards are functions of a program. Here they are metrics: objective: {use: grpo, rewards: ...}."
            if name == "grpo"
            else "",
        )
    said: dict[str, Any] = {"use": name}
    if name == "dpo" and loss in _DPO_LOSSES:
        said["loss"] = loss
    else:
        draft.leave("loss_type", loss, f"{name} has no such loss")
    for key, names in _OBJECTIVES[name].items():
        value = draft.take(*names)
        if value is not None:
            said[key] = value
    draft.put("objective", said if len(said) > 1 else name)


def _words(draft: Draft) -> None:
    added = draft.take("tokens", "added_tokens", "add_tokens", "new_special_tokens", "add_special_tokens")
    words = split_at_commas(added) if isinstance(added, str) else added
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        draft.put("tokenizer", {"extend": {"tokens": 0, "words": words}})
    else:
        draft.leave("tokens", added, "tokenizer.extend.words takes a list of texts")
    special = draft.take("special_tokens")
    if isinstance(special, dict):
        special = {name: text for name, text in special.items() if name != "pad_token"}  # nothing is padded
    draft.leave("special_tokens", special, "the base's own special tokens stay")


def _tracking(draft: Draft) -> None:
    """Converts which programs are told of a run, each by the callback of its name.

    One that has a project, say, is told too, unless the file says otherwise, by another `report_to` or `use_NAME`.
    """
    listed = draft.settings.get("report_to") is not None
    said = draft.take("report_to")
    named = split_at_commas(said) if isinstance(said, str) else said if isinstance(said, list) else []
    asked = {str(name) for name in named} - {"none"}
    switched_off = {"wandb"} if draft.settings.get("wandb_mode") == "disabled" else set()
    name = draft.settings.get("run_name")
    for program, fields in _TRACKED.items():
        implied = not listed and draft.settings.get(f"use_{program}") is None and draft.settings.get(fields[0].key)
        wanted = draft.take(f"use_{program}") or program in asked or implied
        asked.discard(program)
        if not wanted or program in switched_off:
            continue
        found = {each.name: draft.take(each.key) or each.otherwise for each in fields}
        if "name" in found and not found["name"]:
            draft.settings.pop("run_name", None)
            found["name"] = name
        draft.put(f"plugins.{program}", {field: value for field, value in found.items() if value})
    draft.leave("report_to", sorted(asked), "callbacks are tensorboard, wandb and mlflow, and those of plugins")


def _template(draft: Draft) -> None:
    """Converts what the chat template is given. Thinking is on where nothing is said, there and in templates."""
    given = draft.take("chat_template_kwargs")
    arguments = dict(given) if isinstance(given, dict) and all(isinstance(name, str) for name in given) else {}
    if not arguments:
        draft.leave("chat_template_kwargs", given, "data.template_arguments is a mapping of names to values")
    if draft.is_off("enable_thinking"):
        arguments["enable_thinking"] = False
    draft.take("enable_thinking")
    if arguments:
        draft.put("data.template_arguments", arguments)
        draft.told.append(
            f"data.template_arguments says {', '.join(arguments)}: leave out what the model's chat template has not"
        )


def _learnt(draft: Draft) -> None:
    """Tells of a key that is on where nothing is said."""
    if draft.is_off("completion_only_loss"):
        draft.take("completion_only_loss")
        draft.left["completion_only_loss"] = "of prompts and completions only the completions are learnt"


def _plugins(draft: Draft) -> None:
    """Names the plugins that do more than to compute the same with other kernels."""
    said = draft.take("plugins")
    named = said if isinstance(said, list) else [said]
    others = [name for name in named if name is not None and not str(name).endswith(_KERNELS)]
    draft.leave("plugins", others, "plugins of graftkit are installed packages")


def _export(draft: Draft) -> None:
    whole = draft.recipe["adapter"]["use"] == "full"
    draft.put("export", ["merged" if whole else "peft"])


_PARTS: Sequence[Callable[[Draft], None]] = (
    _model,
    _method,
    _adapter,
    _length,
    _duration,
    _batch,
    _rate,
    _optimizer,
    _precision,
    _memory,
    _evaluation,
    _objective,
    _words,
    _whole_modules,
    _tracking,
    _template,
    _learnt,
    _plugins,
    _export,
)

_KERNELS = ("LigerPlugin", "CutCrossEntropyPlugin")

_ORDER = (
    "model",
    "tokenizer",
    "data",
    "quantizer",
    "adapter",
    "objective",
    "training",
    "memory",
    "evaluation",
    "export",
    "plugins",
)


@dataclass(frozen=True, slots=True)
class _Field:
    """A callback's field, the key that says it, and what that program takes where it does not."""

    name: str
    key: str
    otherwise: str | None = None


_TRACKED: Mapping[str, Sequence[_Field]] = {
    "tensorboard": [_Field("folder", "", "tensorboard")],
    "wandb": [
        _Field("project", "wandb_project", "huggingface"),
        _Field("entity", "wandb_entity"),
        _Field("name", "wandb_name"),
        _Field("mode", "wandb_mode"),
    ],
    "mlflow": [
        _Field("experiment", "mlflow_experiment_name", "Default"),
        _Field("tracking_uri", "mlflow_tracking_uri"),
        _Field("name", "mlflow_run_name"),
    ],
}
"""Callbacks, each with the field first that its own key asks for."""

_LORA: Mapping[str, Sequence[str]] = {
    "rank": ("lora_r", "lora_rank"),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "rslora": ("peft_use_rslora", "use_rslora"),
    "dora": ("peft_use_dora", "use_dora"),
    "lora_plus_ratio": ("loraplus_lr_ratio",),
}
_TRAINING: Mapping[str, Sequence[str]] = {
    "learning_rate": ("learning_rate",),
    "weight_decay": ("weight_decay",),
    "max_grad_norm": ("max_grad_norm",),
    "neftune_noise_alpha": ("neftune_noise_alpha",),
    "beta1": ("adam_beta1",),
    "beta2": ("adam_beta2",),
    "epsilon": ("adam_epsilon",),
    "seed": ("seed",),
}
_SCHEDULES: Mapping[str, str] = {
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "cosine_warmup_with_min_lr": "cosine",
    "cosine_with_restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
    "inverse_sqrt": "inverse_sqrt",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "warmup_stable_decay": "wsd",
}
_OF_SCHEDULE: Mapping[str, Sequence[tuple[str, str, Callable[[object, Mapping[str, Any]], Any]]]] = {
    "cosine": [("min_lr_rate", "min_lr_ratio", _as_share), ("min_lr", "min_lr_ratio", _as_share_of_peak)],
    "cosine_with_restarts": [("num_cycles", "cycles", _as_count)],
    "polynomial": [("power", "power", _as_power), ("lr_end", "min_lr_ratio", _as_share_of_peak)],
    "inverse_sqrt": [("timescale", "timescale", _as_count)],
    "wsd": [
        ("num_decay_steps", "decay", _as_share_of_steps),
        ("decay_type", "decay_type", _as_curve),
        ("min_lr_ratio", "min_lr_ratio", _as_share),
    ],
}
"""By schedule what their programs give it, the key of `training` for each, and what that one's value is, or None."""
_OPTIMIZERS: Mapping[str, Sequence[str]] = {
    "adamw": [
        *("adamw", "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_apex_fused"),
        *("adamw_hf", "adamw_bnb", "paged_adamw", "paged_adamw_32bit"),
    ],
    "adamw-8bit": ["adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "ao_adamw_8bit", "paged_adamw_8bit"],
    "sgd": ["sgd"],
    "lion": ["lion", "lion_pytorch", "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"],
    "adafactor": ["adafactor"],
    "muon": ["muon"],
}
"""Optimizers, and what other programs call them."""
_DPO_LOSSES = ("sigmoid", "ipo", "hinge", "robust")
_OBJECTIVES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "dpo": {
        "beta": ("rl_beta", "dpo_beta", "pref_beta", "beta"),
        "label_smoothing": ("dpo_label_smoothing", "label_smoothing"),
        "nll_weight": ("pref_ftx", "rpo_alpha"),
    },
    "orpo": {"beta": ("orpo_alpha", "rl_beta", "pref_beta", "beta")},
    "simpo": {"beta": ("rl_beta", "pref_beta", "beta"), "gamma": ("simpo_gamma",)},
    "kto": {
        "beta": ("rl_beta", "pref_beta", "beta"),
        "wanted_weight": ("kto_desirable_weight", "kto_chosen_weight", "desirable_weight"),
        "unwanted_weight": ("kto_undesirable_weight", "kto_rejected_weight", "undesirable_weight"),
    },
    "reward": {},
}
