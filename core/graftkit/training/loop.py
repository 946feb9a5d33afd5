"""The training loop: plan, forward, backward, clip, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from graftkit.errors import TrainingError
from graftkit.host.lifecycle import StepInfo
from graftkit.recipe.schema import TrainingSection
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import TokenStore
from graftkit.training.optimizers import Optimizers, RowTraining
from graftkit.training.order import Mixture, plan_steps
from graftkit.training.step_loss import LikelihoodLoss, Passes, StepLoss, StepScore

__all__ = ["Trainer", "holdout_loss"]


class Trainer:
    """Trains some parameters of a network on a store of tokens.

    Args:
        network: The model.
        parameters: What is trained, by name.
        store: The examples.
        options: The recipe's training section.
        device: Where the network computes.
        rows: How the new rows of the embeddings are trained, where there are any; the others are the adapter.
        rate_scales: Factors on the adapter's learning rate by the parameter's name; 1 where none is given.
        packed: Whether sequences share a pass, kept apart by the network's packed attention; else they run one by one.
        mixture: Which examples an epoch sees; each once where it is None.
        loss: What a step minimizes, made of how examples are cut into passes; the likelihood when left out.

    Attributes:
        plan: The examples of every step.
        step: How many steps have been taken.
        whole: False only while a step is changing parameters: the state is then neither the old nor the new one.
    """

    def __init__(
        self,
        network: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        store: TokenStore,
        options: TrainingSection,
        device: torch.device,
        rows: RowTraining | None = None,
        *,
        rate_scales: Mapping[str, float] | None = None,
        packed: bool = True,
        mixture: Mixture | None = None,
        loss: Callable[[Passes], StepLoss] | None = None,
    ) -> None:
        self.step = 0
        self.whole = True
        self._network = network
        self._store = store
        self._lengths = store.lengths.tolist()
        self.plan = plan_steps(
            self._lengths,
            seed=options.seed,
            tokens_per_step=options.tokens_per_step,
            epochs=options.epochs,
            steps=options.steps,
            mixture=mixture,
        )
        self._options = options
        self._device = device
        self._passes = Passes(options.microbatch_tokens, packed, device)
        self._loss = loss(self._passes) if loss else LikelihoodLoss(network, self._passes)
        self._optimizers = Optimizers(parameters, options, rows or RowTraining(), rate_scales)

    def run(
        self,
        on_step: Callable[[StepInfo], None],
        poll: Callable[[], None] = lambda: None,
        on_pass: Callable[[int, int, int], None] = lambda step, done, total: None,
    ) -> None:
        """Takes every step that has not been taken yet.

        Args:
            on_step: Called after each step.
            poll: Called before each forward pass; raises to stop.
            on_pass: Called after each but the last pass of a step, with the step's number, how many of its passes are
                done, and how many there are.

        Raises:
            TrainingError: The loss or the gradient is no number.
        """
        self._network.train()
        try:
            for examples in self.plan[self.step :]:
                # Dropout draws from torch's global generator: it is seeded by the step and given back untouched.
                with torch.random.fork_rng(devices=_cuda_index(self._device)):
                    torch.manual_seed(derived_seed(self._options.seed, "dropout", self.step + 1))
                    info = self._take_step(len(self.plan), examples, poll, on_pass)
                on_step(info)
        finally:
            self._optimizers.freeze_adapter(False)
            self._optimizers.forget_gradients()
            self._network.eval()

    def state(self) -> dict[str, torch.Tensor]:
        """Returns every tensor that the next step depends on: parameters and the optimizers' moments, by name."""
        return self._optimizers.state()

    def load_state(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Goes back to where `state` was taken, after `step` steps.

        Raises:
            TrainingError: A tensor is missing, left over or of another shape; nothing is changed then.
        """
        self._optimizers.load_state(step, state)
        self.step = step

    def count_passes(self, *, packed: bool) -> int:
        """Returns how many forward passes all steps take, or would take if sequences shared them."""
        passes = replace(self._passes, packed=packed)
        return sum(passes.count(self._store, passes.groups(examples, self._lengths)) for examples in self.plan)

    def count_tokens(self) -> tuple[int, int]:
        """Returns how many tokens the steps taken so far have seen, and over how many of them the loss was taken."""
        examples = [example for step in self.plan[: self.step] for example in step]
        return sum(self._lengths[example] for example in examples), sum(
            int(self._store.loss_tokens[example]) for example in examples
        )

    def _take_step(
        self,
        steps: int,
        examples: Sequence[int],
        poll: Callable[[], None],
        on_pass: Callable[[int, int, int], None],
    ) -> StepInfo:
        start = time.perf_counter()
        step = self.step + 1
        rate = self._optimizers.begin(step, steps)
        groups = self._passes.groups(examples, self._lengths)
        score = self._loss.backward(self._store, groups, poll, partial(on_pass, step))
        norm = self._optimizers.clip()
        if not (math.isfinite(score.loss) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: the loss is {score.loss}, the gradient's norm {norm}",
                hint="A lower training.learning_rate or a longer warmup usually helps.",
            )
        self.whole = False
        self._optimizers.step()
        self.step, self.whole = step, True
        self._optimizers.forget_gradients()
        seconds = time.perf_counter() - start
        return StepInfo(
            step, steps, score.loss, score.tokens, score.loss_tokens, seconds, rate, norm, metrics=score.metrics
        )


def holdout_loss(
    network: nn.Module,
    store: TokenStore,
    device: torch.device,
    microbatch_tokens: int,
    poll: Callable[[int, int], None] = lambda done, total: None,
    *,
    packed: bool = True,
    loss: Callable[[Passes], StepLoss] | None = None,
) -> StepScore:
    """Returns the loss of the holdout examples, by default the mean negative log-likelihood of a token, in nats.

    Args:
        network: The model.
        store: The holdout examples.
        device: Where the network computes.
        microbatch_tokens: Tokens of one forward pass at most.
        poll: Called before each pass with how many are done and how many there are; raises to stop.
        packed: Whether sequences share a pass, kept apart by the network's packed attention; else they run one by one.
        loss: What is measured, made of how examples are cut into passes; the likelihood when left out.
    """
    passes = Passes(microbatch_tokens, packed, device)
    measured = loss(passes) if loss else LikelihoodLoss(network, passes)
    return measured.evaluate(store, passes.groups(range(len(store)), store.lengths.tolist()), poll)


def _cuda_index(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []
