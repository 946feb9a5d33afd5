"""The training loop: plan, forward, backward, clip, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.host.lifecycle import StepInfo
from graftkit.recipe.schema import TrainingSection
from graftkit.store.token_store import TokenStore
from graftkit.training.batch import pack
from graftkit.training.loss import summed_loss
from graftkit.training.order import group_by_tokens, plan_steps
from graftkit.training.schedule import learning_rate, warmup_steps

__all__ = ["Trainer", "held_out_loss"]


@dataclass(slots=True)
class Trainer:
    """Trains some parameters of a network on a store of tokens.

    Attributes:
        network: The model; its attention is the packed one.
        parameters: What is trained.
        store: The rows.
        options: The recipe's training section.
        device: Where the network computes.
    """

    network: nn.Module
    parameters: Sequence[nn.Parameter]
    store: TokenStore
    options: TrainingSection
    device: torch.device

    def run(self, on_step: Callable[[StepInfo], None], poll: Callable[[], None] = lambda: None) -> None:
        """Takes every step.

        Args:
            on_step: Called after each step.
            poll: Called before each forward pass; raises to stop.

        Raises:
            TrainingError: The loss or the gradient is no number.
        """
        plan = self.plan()
        optimizer = torch.optim.AdamW(
            self.parameters, lr=self.options.learning_rate, weight_decay=self.options.weight_decay
        )
        self.network.train()
        try:
            for step, rows in enumerate(plan, 1):
                # Dropout draws from torch's global generator: it is seeded by the step and given back untouched.
                with torch.random.fork_rng(devices=_cuda_index(self.device)):
                    torch.manual_seed((self.options.seed * 1_000_003 + step) % 2**63)
                    on_step(self._step(step, len(plan), rows, optimizer, poll))
        finally:
            self.network.eval()

    def plan(self) -> list[list[int]]:
        """Returns the rows of every step."""
        return plan_steps(
            self.store.lengths.tolist(),
            seed=self.options.seed,
            tokens_per_step=self.options.tokens_per_step,
            epochs=self.options.epochs,
            steps=self.options.steps,
        )

    def _step(
        self,
        step: int,
        steps: int,
        rows: Sequence[int],
        optimizer: torch.optim.Optimizer,
        poll: Callable[[], None],
    ) -> StepInfo:
        start = time.perf_counter()
        rate = self._set_rate(step, steps, optimizer)
        loss, tokens, supervised = self._accumulate(rows, poll)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: the loss is {loss}, the gradient's norm {norm}",
                hint="A lower training.learning_rate or a longer warmup usually helps.",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepInfo(step, steps, loss, tokens, supervised, time.perf_counter() - start, rate, norm)

    def _set_rate(self, step: int, steps: int, optimizer: torch.optim.Optimizer) -> float:
        rate = learning_rate(
            step,
            steps,
            peak=self.options.learning_rate,
            warmup=warmup_steps(steps, self.options.warmup),
            schedule=self.options.schedule,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _accumulate(self, rows: Sequence[int], poll: Callable[[], None]) -> tuple[float, int, int]:
        """Sums the gradient of the step's mean loss; how rows are cut into passes does not change it."""
        micro = group_by_tokens(rows, self.store.lengths.tolist(), self.options.micro_tokens)
        supervised = sum(int(self.store[row].supervised[1:].sum()) for row in rows)
        total, tokens = 0.0, 0
        for group in micro:
            poll()
            batch = pack([self.store[row] for row in group], self.device)
            loss = summed_loss(self.network, batch) / supervised
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            tokens += batch.tokens
        return total, tokens, supervised


@torch.no_grad()
def held_out_loss(
    network: nn.Module,
    store: TokenStore,
    device: torch.device,
    micro_tokens: int,
    poll: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Returns the mean negative log-likelihood of a supervised token, in nats.

    Args:
        network: The model; its attention is the packed one.
        store: The held-out rows.
        device: Where the network computes.
        micro_tokens: Tokens of one forward pass at most.
        poll: Called before each pass with how many are done and how many there are; raises to stop.
    """
    groups = group_by_tokens(range(len(store)), store.lengths.tolist(), micro_tokens)
    total, supervised = 0.0, 0
    for done, group in enumerate(groups):
        poll(done, len(groups))
        batch = pack([store[row] for row in group], device)
        total += summed_loss(network, batch).item()
        supervised += len(batch.labels)
    return total / supervised


def _cuda_index(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []
