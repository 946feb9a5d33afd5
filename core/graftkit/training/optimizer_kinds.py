"""The optimizers that a recipe names, and what each keeps of a parameter from step to step.

`adamw-8bit` is bitsandbytes' (Dettmers et al., 2021, https://arxiv.org/abs/2110.02861): both moments of a parameter
with 4096 numbers or more are stored as one of 256 levels each, times the largest of their block of 256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.quiet import importing_bitsandbytes
from graftkit.recipe.schema import TrainingSection

__all__ = ["empty_state", "kept_of", "keys_of", "make_optimizer", "restore"]

_MOMENTUM = 0.9
"""Of plain gradient descent."""

_LEVELS = ("qmap1", "qmap2")
"""What bitsandbytes has beside a parameter's moments, the same for all: it is made anew."""

_MOST_BYTES = 4096
_BLOCK = 256


def make_optimizer(groups: Sequence[Mapping[str, Any]], options: TrainingSection) -> torch.optim.Optimizer:
    """Makes the optimizer that a recipe names.

    Args:
        groups: Groups of parameters, as torch's optimizers take them.
        options: The recipe's training section.
    """
    given: Any = [dict(group) for group in groups]
    common: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.optimizer == "sgd":
        return torch.optim.SGD(given, momentum=_MOMENTUM, **common)
    common |= {"betas": (options.beta1, options.beta2), "eps": options.epsilon}
    if options.optimizer == "adamw-8bit":
        with importing_bitsandbytes():
            from bitsandbytes.optim import AdamW8bit
        found: torch.optim.Optimizer = AdamW8bit(given, **common)
    else:
        # One kernel on CUDA; torch's own choice there keeps a copy of a moment while it computes.
        fused = all(parameter.is_cuda for group in given for parameter in group["params"])
        found = torch.optim.AdamW(given, fused=fused, **common)
        if not fused:
            return found
    found.register_step_post_hook(_count_changes)
    return found


def _count_changes(optimizer: torch.optim.Optimizer, args: Any, keywords: Any) -> None:
    """Counts a change of each parameter, which no kernel for all of it does: `DoraWeight` asks for the count."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                torch.autograd.graph.increment_version(parameter)


def keys_of(options: TrainingSection, parameter: nn.Parameter) -> dict[str, torch.Size]:
    """Returns the shape of each tensor that the optimizer keeps of a parameter once it has been trained."""
    shape, step = parameter.shape, torch.Size()
    if options.optimizer == "sgd":
        return {"momentum_buffer": shape}
    if options.optimizer == "adamw-8bit":
        blocks = torch.Size([-(-parameter.numel() // _BLOCK)])
        scales = {"absmax1": blocks, "absmax2": blocks} if parameter.numel() >= _MOST_BYTES else {}
        return {"step": step, "state1": shape, "state2": shape, **scales}
    return {"step": step, "exp_avg": shape, "exp_avg_sq": shape}


def empty_state(options: TrainingSection, parameter: nn.Parameter) -> list[torch.Tensor]:
    """Returns tensors of the shapes and types that the optimizer keeps of a parameter, but for the count of steps."""
    in_bytes = options.optimizer == "adamw-8bit" and parameter.numel() >= _MOST_BYTES
    return [
        torch.zeros(shape, dtype=torch.uint8 if in_bytes and key.startswith("state") else torch.float32)
        for key, shape in keys_of(options, parameter).items()
        if key != "step"
    ]


def kept_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """Returns what an optimizer keeps of a parameter, by name; nothing of one that never got a gradient."""
    state: Mapping[str, Any] = optimizer.state.get(parameter, {})
    return {key: torch.as_tensor(value) for key, value in state.items() if key not in _LEVELS}


def restore(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, kept: Mapping[str, torch.Tensor]) -> None:
    """Gives an optimizer what `kept_of` returned.

    Args:
        optimizer: The optimizer.
        parameter: The parameter that it is of.
        kept: What was kept.
    """
    counts_there = bool(optimizer.defaults.get("fused"))
    moved = {
        key: value.clone() if key == "step" and not counts_there else value.to(parameter.device)
        for key, value in kept.items()
    }
    own = optimizer.state[parameter]
    init: Any = getattr(optimizer, "init_state", None)
    if init is None:
        own.update({key: value.clone() for key, value in moved.items()})
        return
    for number, group in enumerate(optimizer.param_groups):
        for place, found in enumerate(group["params"]):
            if found is parameter:
                init(group, parameter, number, place)
    own.update({key: int(value) if key == "step" else value.clone() for key, value in moved.items()})
