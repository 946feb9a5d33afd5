"""The optimizers that a recipe names, and what each keeps of a parameter from step to step.

`adamw-8bit` is bitsandbytes' (Dettmers et al., 2021, https://arxiv.org/abs/2110.02861): both moments of a parameter
with 4096 numbers or more are stored as one of 256 levels each, times the largest of their block of 256.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.quiet import importing_bitsandbytes
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.adafactor import Adafactor, factors_of
from graftkit.training.lion import Lion
from graftkit.training.muon import Muon

__all__ = ["empty_state", "kept_of", "keys_of", "make_optimizer", "restore", "tells_hidden"]

_MOMENTUM = 0.9
"""Of plain gradient descent."""

_LEVELS = ("qmap1", "qmap2")
"""What bitsandbytes has beside a parameter's moments, the same for all: it is made anew."""

_MOST_BYTES = 4096
_BLOCK = 256

_STEP = {"step": torch.Size()}
_IN_BYTES = ("state1", "state2")


@dataclass(frozen=True, slots=True)
class _Kind:
    """An optimizer.

    Attributes:
        make: Makes it of groups of parameters and the recipe's training section.
        keeps: Returns the shape of each tensor that it keeps of a parameter of some shape, by key.
        keeps_of_hidden: The same of a matrix of a hidden layer, where it trains these otherwise.
    """

    make: Callable[[Any, TrainingSection], torch.optim.Optimizer]
    keeps: Callable[[torch.Size], dict[str, torch.Size]]
    keeps_of_hidden: Callable[[torch.Size], dict[str, torch.Size]] | None = None


def _adamw(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    # One kernel on CUDA; torch's own choice there keeps a copy of a moment while it computes.
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    found = torch.optim.AdamW(groups, fused=fused, **_of_adam(options))
    return _counting_changes(found) if fused else found


def _adamw_in_8_bits(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    with importing_bitsandbytes():
        from bitsandbytes.optim import AdamW8bit
    return _counting_changes(AdamW8bit(groups, **_of_adam(options)))


def _sgd(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, options.learning_rate, momentum=_MOMENTUM, weight_decay=options.weight_decay)


def _lion(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    return Lion(groups, options.learning_rate, (options.beta1, options.beta2), options.weight_decay)


def _adafactor(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    return Adafactor(groups, options.learning_rate, options.weight_decay)


def _muon(groups: Any, options: TrainingSection) -> torch.optim.Optimizer:
    return Muon(groups, **_of_adam(options))


def _of_adam(options: TrainingSection) -> dict[str, Any]:
    return {
        "lr": options.learning_rate,
        "weight_decay": options.weight_decay,
        "betas": (options.beta1, options.beta2),
        "eps": options.epsilon,
    }


def _moments(shape: torch.Size) -> dict[str, torch.Size]:
    return {**_STEP, "exp_avg": shape, "exp_avg_sq": shape}


def _one_mean(shape: torch.Size) -> dict[str, torch.Size]:
    return {"momentum_buffer": shape}


def _in_8_bits(shape: torch.Size) -> dict[str, torch.Size]:
    blocks = torch.Size([-(-shape.numel() // _BLOCK)])
    scales = {"absmax1": blocks, "absmax2": blocks} if shape.numel() >= _MOST_BYTES else {}
    return {**_STEP, "state1": shape, "state2": shape, **scales}


_KINDS: Mapping[str, _Kind] = {
    "adamw": _Kind(_adamw, _moments),
    "adamw-8bit": _Kind(_adamw_in_8_bits, _in_8_bits),
    "sgd": _Kind(_sgd, _one_mean),
    "lion": _Kind(_lion, lambda shape: {"exp_avg": shape}),
    "adafactor": _Kind(_adafactor, lambda shape: {**_STEP, **factors_of(shape)}),
    "muon": _Kind(_muon, _moments, _one_mean),
}


def make_optimizer(groups: Sequence[Mapping[str, Any]], options: TrainingSection) -> torch.optim.Optimizer:
    """Makes the optimizer that a recipe names.

    Args:
        groups: Groups of parameters, as torch's optimizers take them.
        options: The recipe's training section.
    """
    return _KINDS[options.optimizer].make([dict(group) for group in groups], options)


def _counting_changes(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Has each change of a parameter counted, which no kernel for all of it does: `DoraWeight` asks for the count."""

    def count(changed: torch.optim.Optimizer, args: Any, keywords: Any) -> None:
        for group in changed.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.autograd.graph.increment_version(parameter)

    optimizer.register_step_post_hook(count)
    return optimizer


def tells_hidden(options: TrainingSection) -> bool:
    """Returns whether matrices of hidden layers are trained otherwise than all else: groups say so under `HIDDEN`."""
    return _KINDS[options.optimizer].keeps_of_hidden is not None


def keys_of(options: TrainingSection, parameter: nn.Parameter, *, hidden: bool = False) -> dict[str, torch.Size]:
    """Returns the shape of each tensor that the optimizer keeps of a parameter once it has been trained.

    Args:
        options: The recipe's training section.
        parameter: The parameter.
        hidden: Whether it is a matrix of a hidden layer.
    """
    kind = _KINDS[options.optimizer]
    keeps = kind.keeps_of_hidden if hidden and kind.keeps_of_hidden else kind.keeps
    return keeps(parameter.shape)


def empty_state(options: TrainingSection, parameter: nn.Parameter, *, hidden: bool = False) -> list[torch.Tensor]:
    """Returns tensors of the shapes and types that the optimizer keeps of a parameter, but for the count of steps.

    Arguments are those of `keys_of`.
    """
    kept = keys_of(options, parameter, hidden=hidden)
    in_bytes = _IN_BYTES if "absmax1" in kept else ()
    return [
        torch.zeros(shape, dtype=torch.uint8 if key in in_bytes else torch.float32)
        for key, shape in kept.items()
        if key not in _STEP
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
