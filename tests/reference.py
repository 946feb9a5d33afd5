"""Sequences of unequal length, what training makes of them, and what the model's own code makes of each alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.model.packing import Packing, use_packing
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import pack
from graftkit.training.loss import TokenLoss
from graftkit.training.step_loss import Passes, StepCalls, StepLoss, StepScore
from torch.nn.functional import cross_entropy

__all__ = ["examples", "gradients", "move_from_start", "reference_loss", "step_gradients", "training_loss"]


def examples() -> list[Example]:
    """Returns four examples of a tiny model's ids, about six in ten tokens supervised, some longer than a window."""
    random = np.random.default_rng(0)
    return [Example(random.integers(0, 256, n), random.random(n) < 0.6, 1) for n in (45, 9, 17, 30)]  # type: ignore[arg-type]


def move_from_start(adapted: Mapping[str, AdaptedWeight]) -> None:
    """Gives every trainable parameter random numbers, so that no adapter is the identity that it begins as."""
    generator = torch.Generator().manual_seed(0)
    for weight in adapted.values():
        for parameter in weight.trainable_parameters().values():
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)


def training_loss(network: Any, packing: Packing, device: torch.device) -> float:
    """Returns the summed loss of `examples` as training computes it, and adds its gradient to the parameters'."""
    use_packing(network, packing)
    loss, rows = TokenLoss(network, packed=packing.packed), examples()
    passes = [rows] if packing.packed else [[example] for example in rows]
    return sum(loss.backward(pack(group, device), 1.0).item() for group in passes)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Returns a copy of each gradient that a model has, by its parameter's name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def step_gradients(
    model: Any,
    store: TokenStore,
    loss: Callable[[Any, Passes], StepLoss],
    *,
    packed: bool = True,
    microbatch: int = 60,
) -> tuple[StepScore, dict[str, torch.Tensor]]:
    """Returns what a step over all examples of a store comes to, and the gradients that it gives a model of peft's.

    Args:
        model: The model, whose base computes with packed attention from then on.
        store: The examples.
        loss: Makes the step's loss of the base model and of how examples are cut into passes.
        packed: Whether sequences share a pass.
        microbatch: Tokens of a pass at most.
    """
    model.zero_grad()
    network = model.get_base_model()
    use_packing(network, Packing(packed))
    passes = Passes(microbatch, packed, torch.device("cpu"))
    groups = passes.groups(range(len(store)), store.lengths.tolist())
    score = loss(network, passes).backward(store, groups, StepCalls())
    return score, gradients(model)


@torch.no_grad()
def reference_loss(model: Any, store: TokenStore) -> float:
    """Returns the mean loss of a supervised token, each example alone through a transformers model."""
    return mean_loss(model, store).item()


def mean_loss(model: Any, store: TokenStore) -> torch.Tensor:
    """Returns what `reference_loss` does, with its gradient."""
    losses, count = [], 0
    for example in store:
        logits = model(input_ids=torch.from_numpy(example.ids)[None], use_cache=False).logits[0, :-1]
        labels = torch.from_numpy(example.ids).where(torch.from_numpy(example.loss_mask), -100)[1:]
        losses.append(cross_entropy(logits, labels, reduction="sum"))
        count += int((labels >= 0).sum())
    return torch.stack(losses).sum() / count
