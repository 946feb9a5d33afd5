"""Settings of `swift sft --config FILE` and `swift rlhf`, under the names that TRL and LLaMA-Factory have for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graftkit.recipe.conversion.draft import Draft

__all__ = ["data_of_ms_swift", "rename_ms_swift"]

_NAMES: Mapping[str, str] = {
    "model": "model_name_or_path",
    "train_type": "finetuning_type",
    "tuner_type": "finetuning_type",
    "quant_bits": "quantization_bit",
    "quant_method": "quantization_method",
    "lorap_lr_ratio": "loraplus_lr_ratio",
    "init_weights": "init_lora_weights",
    "split_dataset_ratio": "val_size",
    "rlhf_type": "rl",
    "adapters": "adapter_name_or_path",
}
_TOO_LONG = {"delete": "drop", "right": "truncate", "raise": "raise"}
_SAYS_NOTHING = {"loss_scale": "default", "task_type": "causal_lm", "use_chat_template": True}
"""What keys may say that is so without them."""
_DATA_SET = re.compile(r"(?:(?:HF|MS)::)?(?P<path>.+?)(?::(?P<subset>[^:/#]+))?(?:#(?P<first>\d+))?")


def rename_ms_swift(draft: Draft) -> None:
    """Gives settings the names that others have for them, and their values where they differ.

    Args:
        draft: The settings.
    """
    for name, own in _NAMES.items():
        draft.rename(name, own)
    strategy = _TOO_LONG.get(str(draft.settings.get("truncation_strategy")))
    if strategy:
        draft.settings["truncation_strategy"] = strategy
        draft.rename("truncation_strategy", "excess_length_strategy")
    else:
        draft.leave(
            "truncation_strategy", draft.take("truncation_strategy"), "data.overflow is drop, truncate or error"
        )
    for name, value in _SAYS_NOTHING.items():
        if draft.settings.get(name) == value:
            del draft.settings[name]


def data_of_ms_swift(
    draft: Draft, data_sets: Mapping[str, Any], is_there: Callable[[str], bool]
) -> Iterator[dict[str, Any]]:
    """Yields the records that are trained on: each a path or a name, with a part and a number of samples behind.

    Args:
        draft: The settings.
        data_sets: Nothing.
        is_there: Whether a path leads to something.
    """
    held = _named(draft, "val_dataset", is_there)
    if held:
        draft.give("eval_dataset", held, "val_dataset")
    train = _named(draft, "dataset", is_there)
    if any(not is_there(entry["path"]) for entry in [*train, *held]):
        draft.told.append("data.train: a name is looked for on Hugging Face's hub, not on ModelScope's")
    yield from train


def _named(draft: Draft, key: str, is_there: Callable[[str], bool]) -> list[dict[str, Any]]:
    said = draft.take(key)
    names = said if isinstance(said, list) else [said] if isinstance(said, str) else []
    if not names:
        draft.leave(key, said, "it names no records")
    return [_placed(draft, name, f"{key}[{n}]", is_there) for n, name in enumerate(names) if isinstance(name, str)]


def _placed(draft: Draft, said: str, name: str, is_there: Callable[[str], bool]) -> dict[str, Any]:
    found = _DATA_SET.fullmatch(said)
    if is_there(said) or found is None:
        return {"path": said}
    entry: dict[str, Any] = {"path": found["path"]}
    draft.leave(f"{name}'s part", found["subset"], "a data set of the hub is read by its files; name one")
    if found["first"] and 0 < int(found["first"]) <= 10**9:
        entry["first"] = int(found["first"])
    return entry
