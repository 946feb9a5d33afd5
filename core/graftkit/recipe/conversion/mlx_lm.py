"""Settings of `mlx_lm.lora --config FILE`, under the names that TRL has for them; and the records that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graftkit.recipe.conversion.draft import Draft, is_count, is_number, take_split

__all__ = ["data_of_mlx_lm", "rename_mlx_lm"]

_NAMES: Mapping[str, str] = {
    "model": "model_name_or_path",
    "fine_tune_type": "finetuning_type",
    "lora_parameters.rank": "lora_rank",
    "lora_parameters.dropout": "lora_dropout",
    "lora_parameters.keys": "lora_target_modules",
    "batch_size": "per_device_train_batch_size",
    "grad_accumulation_steps": "gradient_accumulation_steps",
    "iters": "max_steps",
    "steps_per_eval": "eval_steps",
    "save_every": "save_steps",
    "grad_checkpoint": "gradient_checkpointing",
    "resume_adapter_file": "adapter_name_or_path",
    "lr_schedule.warmup": "warmup_steps",
    "optimizer_config.eps": "adam_epsilon",
    "optimizer_config.weight_decay": "weight_decay",
}
_COUNTED_IN_PASSES = ("iters", "steps_per_eval", "save_every")
_SECTIONS = ("lora_parameters", "lr_schedule")
_SCHEDULES = {"cosine_decay": "cosine", "linear_schedule": "linear"}
_BATCH, _RANK = 4, 8
"""What holds where the file says nothing, of what other keys are counted by."""


def rename_mlx_lm(draft: Draft) -> None:
    """Gives settings TRL's names, and its values where they differ.

    Args:
        draft: The settings, those of sections under names with dots afterwards.
    """
    for section in _SECTIONS:
        _spread(draft, section, draft.settings.pop(section, None))
    _optimizer(draft)
    _method(draft)
    _schedule(draft)
    _counts(draft)
    for name, own in _NAMES.items():
        draft.rename(name, own)
    if "wandb" in str(draft.settings.get("report_to")):
        draft.rename("project_name", "wandb_project")
    if draft.take("mask_prompt"):
        draft.told.append("data.train: every answer of a conversation is learnt, not the last one alone")


def _spread(draft: Draft, section: str, said: object) -> None:
    """Puts what a section says under names with dots."""
    if isinstance(said, dict):
        draft.settings |= {f"{section}.{key}": value for key, value in said.items()}
    else:
        draft.leave(section, said, "it is no mapping")


def _optimizer(draft: Draft) -> None:
    """Takes what is said of the optimizer that is used, and tells what it does otherwise there."""
    name = str(draft.settings.get("optimizer") or "adam")
    of_each = draft.settings.pop("optimizer_config", None)
    if isinstance(of_each, dict):
        others = {f"optimizer_config.{other}": said for other, said in of_each.items() if other != name}
        for other, said in others.items():
            draft.leave(other, said, f"the optimizer is {name}")
        of_each = of_each.get(name)
    _spread(draft, "optimizer_config", of_each)
    betas = draft.take("optimizer_config.betas")
    if isinstance(betas, list) and len(betas) == 2:
        for name_of, beta in zip(("adam_beta1", "adam_beta2"), betas, strict=True):
            draft.give(name_of, beta, "optimizer_config.betas")
    else:
        draft.leave("optimizer_config.betas", betas, "training.beta1 and training.beta2 are two numbers")
    corrected = draft.take("optimizer_config.bias_correction")
    if name in ("adam", "adamw") and not corrected:
        draft.told.append("training.optimizer: AdamW corrects its means for their start at zero, as bias_correction")
    if name == "adafactor":
        draft.told.append("training.optimizer: the rate is the recipe's own, not scaled by parameters' sizes")
    momentum = draft.take("optimizer_config.momentum")
    if name == "sgd":
        draft.leave("optimizer_config.momentum", momentum if momentum != 0.9 else None, "sgd's momentum is 0.9")
        if momentum is None:
            draft.told.append("training.optimizer: sgd has a momentum of 0.9")
    else:
        draft.leave("optimizer_config.momentum", momentum, "a recipe has no key for it")


def _method(draft: Draft) -> None:
    if draft.settings.get("fine_tune_type") == "dora":
        draft.settings["fine_tune_type"] = "lora"
        draft.give("use_dora", True, "fine_tune_type")
    scale, rank = draft.take("lora_parameters.scale"), draft.settings.get("lora_parameters.rank", _RANK)
    if is_number(scale) and is_number(rank):
        draft.give("lora_alpha", scale * rank, "lora_parameters.scale")
        draft.settings["lora_parameters.rank"] = rank
    else:
        draft.leave("lora_parameters.scale", scale, "adapter.alpha is the scale times the rank")
    keys = draft.settings.get("lora_parameters.keys")
    if isinstance(keys, list):
        draft.settings["lora_parameters.keys"] = [f"*.{key}" for key in keys]
    layers = draft.take("num_layers", "lora_layers")
    if layers != -1:
        draft.leave("num_layers", layers, "layers of all blocks are adapted; adapter.targets takes *.layers.30.*, say")


def _schedule(draft: Draft) -> None:
    """Converts a schedule, whose first argument is the highest rate."""
    name, given = draft.settings.get("lr_schedule.name"), draft.take("lr_schedule.arguments")
    warmup_from = draft.take("lr_schedule.warmup_init")
    draft.leave("lr_schedule.warmup_init", warmup_from, "the rate rises from zero")
    ours = _SCHEDULES.get(str(name))
    numbers = [value for value in given if is_number(value)] if isinstance(given, list) else []
    if ours is None or not numbers or len(numbers) != len(given):
        draft.leave("lr_schedule.arguments", given, "training.schedule has other keys")
        return
    del draft.settings["lr_schedule.name"]
    peak = numbers[0]
    if draft.settings.get("learning_rate") == peak:
        del draft.settings["learning_rate"]
    draft.give("learning_rate", peak, "lr_schedule.arguments")
    draft.give("lr_scheduler_type", ours, "lr_schedule.name")
    end = (numbers[2] if len(numbers) > 2 else 0) if ours == "cosine" else (numbers[1] if len(numbers) > 1 else 0)
    if 0 < end <= peak:
        draft.put("training.min_lr_ratio", round(end / peak, 9))
    elif end:
        draft.leave("lr_schedule.arguments", given, "training.min_lr_ratio is a share of the highest rate")
    draft.told.append("training.schedule: the rate falls until the last step, not as long as lr_schedule.arguments say")


def _counts(draft: Draft) -> None:
    """Counts in steps what is counted in passes, of which a step takes several."""
    passes, batch = draft.settings.get("grad_accumulation_steps"), draft.settings.get("batch_size")
    for name in _COUNTED_IN_PASSES:
        said = draft.settings.get(name)
        if is_count(said) and is_count(passes):
            draft.settings[name] = max(1, said // passes)  # type: ignore[operator]
    measured = draft.take("val_batches")
    if not is_count(draft.settings.get("steps_per_eval")) or not (measured == -1 or is_count(measured)):
        draft.leave("val_batches", measured, "evaluation.sample, a number of records, is of evaluation.every")
    elif measured == -1:
        draft.put("evaluation.sample", "all")
    else:
        draft.put("evaluation.sample", measured * (batch if is_count(batch) else _BATCH))


def data_of_mlx_lm(
    draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]
) -> Iterator[dict[str, Any]]:
    """Yields the records that are trained on: those of a folder with train.jsonl and valid.jsonl, or of the hub.

    Args:
        draft: The settings.
        data_sets: Nothing.
        is_there: Whether a path leads to something.
    """
    folder, of_hub = draft.take("data"), draft.take("hf_dataset")
    entries = of_hub if isinstance(of_hub, list) else [of_hub] if isinstance(of_hub, dict) else []
    if entries:
        draft.leave("data", folder, "hf_dataset says what is read")
        for number, entry in enumerate(entries):
            if isinstance(entry, dict) and entry.get("path"):
                yield _of_hub(draft, entry, f"hf_dataset[{number}]")
            else:
                draft.leave(f"hf_dataset[{number}]", entry, "it names no path")
        return
    draft.leave("hf_dataset", of_hub, "it is no mapping with a path")
    if not isinstance(folder, str):
        draft.leave("data", folder, "it is no folder")
        return
    if not is_there(folder) and folder.count("/") == 1:
        yield {"path": folder}
        return
    if is_there(f"{folder}/valid.jsonl"):
        draft.give("eval_dataset", [{"path": f"{folder}/valid.jsonl"}], "data")
    draft.told.append(
        "data.train: for prompts and completions in the model's chat template, as there, say format: question-answer, "
        "columns: {question: prompt, answer: completion}"
    )
    yield {"path": f"{folder}/train.jsonl"}


def _of_hub(draft: Draft, said: Mapping[str, Any], name: str) -> dict[str, Any]:
    rest = dict(said)
    entry: dict[str, Any] = {"path": rest.pop("path")}
    take_split(draft, entry, rest.pop("train_split", None), f"{name}.train_split")
    prompt, completion = rest.pop("prompt_feature", None), rest.pop("completion_feature", None)
    chat, text = rest.pop("chat_feature", None), rest.pop("text_feature", None)
    if prompt or completion:
        columns = {"question": prompt or "prompt", "answer": completion or "completion"}
        entry |= {"format": "question-answer", "columns": columns}
    elif chat:
        entry |= {"format": "messages"} | ({} if chat == "messages" else {"columns": {"messages": chat}})
    elif text:
        entry |= {"format": "text"} | ({} if text == "text" else {"columns": {"text": text}})
    for key, value in rest.items():
        draft.leave(f"{name}.{key}", value, "data.train and data.holdout take a path, a split and columns")
    return entry
