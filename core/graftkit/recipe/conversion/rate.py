"""The rate and the optimizer of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

from graftkit.recipe.conversion.draft import Draft, is_count, is_number
from graftkit.recipe.schema.training import DecayType, Optimizer, Schedule

__all__ = ["convert_optimizer", "convert_rate"]


def convert_rate(draft: Draft) -> None:
    """Converts the rate, and how it rises and falls."""
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
        draft.leave("lr_scheduler_type", schedule, f"training.schedule is {', '.join(get_args(Schedule))}")
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
    return value if value in get_args(DecayType) else None


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


def convert_optimizer(draft: Draft) -> None:
    """Converts which optimizer there is."""
    name = draft.take("optimizer", "optim")
    if draft.take("use_muon"):
        draft.leave("optim", name, "use_muon says which")
        name = "muon"
    if name is None:
        return
    ours = next((ours for ours, theirs in _OPTIMIZERS.items() if name in theirs), None)
    if ours is None:
        draft.leave("optim", name, f"training.optimizer is {', '.join(get_args(Optimizer))}")
        return
    draft.put("training.optimizer", ours)
    if ours == "lion" and "8bit" in str(name):
        draft.told.append("training.optimizer: lion keeps its mean of the gradient in 32 bits, not in 8")


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
_SCHEDULES: Mapping[str, Schedule] = {
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
_OPTIMIZERS: Mapping[Optimizer, Sequence[str]] = {
    "adamw": [
        *("adamw", "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_apex_fused"),
        *("adam", "adamw_hf", "adamw_bnb", "paged_adamw", "paged_adamw_32bit"),
    ],
    "adamw-8bit": ["adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "ao_adamw_8bit", "paged_adamw_8bit"],
    "sgd": ["sgd"],
    "lion": ["lion", "lion_pytorch", "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"],
    "adafactor": ["adafactor"],
    "muon": ["muon"],
}
"""Optimizers, and what other programs call them."""
