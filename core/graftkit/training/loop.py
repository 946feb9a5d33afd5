"""The training loop: plan, forward, backward, clip, step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from graftkit.errors import LossError, TrainingError
from graftkit.host.lifecycle import StepInfo
from graftkit.model.embedding_noise import embedding_noise
from graftkit.recipe.schema.training import TrainingSection
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import TokenStore
from graftkit.training.loss_watch import LossWatch
from graftkit.training.masking import Masking, epochs_of
from graftkit.training.optimizers import Optimizers, RowTraining
from graftkit.training.order import Mixture, plan_steps
from graftkit.training.processes import ALONE, Processes
from graftkit.training.step_loss import LikelihoodLoss, Passes, StatefulLoss, StepCalls, StepLoss, StepScore
from graftkit.training.together import check_same, receive_state, send_state, sum_gradients

__all__ = ["Trainer", "holdout_loss", "planned_steps"]

_EVALUATE: Mapping[str, Any] = {"evaluate": True}
_TRAINED: Mapping[str, Any] = {"trained": True}
"""What rank 0 announces besides steps and the state to begin with."""

_OF_LOSS = "loss."
"""What the names of a loss's own tensors begin with, where the state has some (`StatefulLoss`)."""


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
        hidden: Which parameters are matrices of hidden layers.
        packed: Whether sequences share a pass, kept apart by the network's packed attention; else they run one by one.
        mixture: Which examples an epoch sees; each once where it is None.
        loss: What a step minimizes, made of how examples are cut into passes; the likelihood when left out.
        masking: How tokens of a step's examples are masked, where masked ones are learnt.
        diverges: Whether a loss that rises may be one that has diverged.
        repeats: How many steps see the same examples, one after the other; a `StatefulLoss` is told of the first.
        processes: Those that share the steps. That of rank 0 calls `run`, the others `follow`.

    Attributes:
        plan: The examples of every step.
        step: How many steps have been taken.
        whole: False only while a step is changing parameters: the state is then neither the old nor the new one.
        stopped: Whether no further step is to be taken, though the plan has more.
        watch: What looks at each step's loss; who goes on with a run gives it the losses of the steps before.
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
        hidden: Collection[str] = (),
        packed: bool = True,
        mixture: Mixture | None = None,
        loss: Callable[[Passes], StepLoss] | None = None,
        masking: Masking | None = None,
        diverges: bool = True,
        repeats: int = 1,
        processes: Processes = ALONE,
    ) -> None:
        self.step = 0
        self.whole = True
        self.stopped = False
        self.watch = LossWatch(options.divergence_factor if diverges else None, options.divergence_window)
        self._network = network
        self._store = store
        self._lengths = store.lengths.tolist()
        self.plan = planned_steps(self._lengths, options, mixture, repeats)
        self._masking, self._epochs = masking, epochs_of(self.plan) if masking else []
        self._options = options
        self._device = device
        self._passes = Passes(options.pass_tokens, packed, device, processes)
        self._loss_of = loss or partial(LikelihoodLoss, network)
        self._loss = self._loss_of(self._passes)
        self._stateful = self._loss if repeats > 1 and isinstance(self._loss, StatefulLoss) else None
        self._repeats = repeats
        self._parameters = list(parameters.values())
        self._processes, self._sent = processes, False
        self._optimizers = Optimizers(parameters, options, rows or RowTraining(), rate_scales, hidden)

    def run(
        self,
        on_step: Callable[[StepInfo], None],
        poll: Callable[[], None] = lambda: None,
        on_pass: Callable[[int, int, int], None] = lambda step, done, total: None,
    ) -> None:
        """Takes every step that has not been taken yet, until it is `stopped`.

        Args:
            on_step: Called after each step.
            poll: Called before each step and each forward pass, and before examples are read; raises to stop.
            on_pass: Called after each but the last pass of a step, with the step's number, how many of its passes are
                done, and how many there are.

        Raises:
            LossError: A step's loss or gradient is no number, or the loss has diverged; the step is not taken.
        """
        with self._training():
            self._send_state()
            while not self.stopped and self.step < len(self.plan):
                poll()
                self._processes.announce({"step": self.step + 1})
                on_step(self._take_step(poll, on_pass))
            self._processes.announce(_TRAINED)
            check_same(self._processes, self.state())

    def follow(self, holdout: TokenStore | None = None, poll: Callable[[], None] = lambda: None) -> None:
        """Takes the same steps as the process of rank 0, and computes this one's part of each.

        Args:
            holdout: The examples that are evaluated between steps, where the recipe asks for that.
            poll: Called before each forward pass; raises to stop.

        Raises:
            TrainingError: What was trained is not the same in every process.
        """
        with self._training():
            while (said := self._processes.next_command()) != _TRAINED:
                if "state" in said:
                    self.load_state(*receive_state(self._processes, said))
                elif "watch" in said:
                    self.watch.load_state(said["watch"])
                elif said == _EVALUATE and holdout is not None:
                    self._evaluate(holdout, poll)
                else:
                    self._take_step(poll, lambda step, done, total: None)
            check_same(self._processes, self.state())

    def _send_state(self) -> None:
        """Sends the other processes what this one begins with, once."""
        if not self._sent:
            send_state(self._processes, self.step, self.state())
            self._processes.announce({"watch": self.watch.state()})
            self._sent = True

    @contextmanager
    def _training(self) -> Iterator[None]:
        self._network.train()
        try:
            with embedding_noise(self._network, self._options.neftune_noise_alpha):
                yield
        finally:
            self._optimizers.freeze_adapter(False)
            self._optimizers.forget_gradients()
            self._network.eval()

    @property
    def masks(self) -> bool:
        """Whether tokens of its examples are masked."""
        return self._masking is not None

    def holdout_loss(self, store: TokenStore, poll: Callable[[], None]) -> float:
        """Returns the holdout loss of the model as it is trained so far; the next step computes the same either way.

        Args:
            store: The holdout examples, which the other processes know.
            poll: Called before they are read, and before each forward pass; raises to stop.
        """
        poll()
        self._send_state()
        self._processes.announce(_EVALUATE)
        return self._evaluate(store, poll)

    def _evaluate(self, store: TokenStore, poll: Callable[[], None]) -> float:
        training = self._network.training
        self._network.eval()
        try:
            return self._loss.evaluate(store, self._passes.all_groups(store), lambda done, total: poll()).loss
        finally:
            self._network.train(training)

    def state(self) -> dict[str, torch.Tensor]:
        """Returns every tensor that the next step depends on, by name.

        They are parameters and the optimizers' moments, and what the loss keeps for it.
        """
        kept = self._stateful.state() if self._stateful and self.step % self._repeats else {}
        return self._optimizers.state() | {f"{_OF_LOSS}{name}": tensor for name, tensor in kept.items()}

    def load_state(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Goes back to where `state` was taken, after `step` steps.

        Raises:
            TrainingError: A tensor is missing, left over or of another shape; nothing is changed then.
        """
        of_optimizers, of_loss = _without_loss(state)
        if self._stateful and step % self._repeats:
            self._stateful.load_state(of_loss)
        elif of_loss:
            raise TrainingError(
                f"the checkpoint has what a loss keeps for a further step, and none follows step {step}"
            )
        self._optimizers.load_state(step, of_optimizers)
        self.step = step

    def load_parameters(self, step: int, state: Mapping[str, torch.Tensor]) -> None:
        """Puts what was trained after some step into the model; the optimizers are not changed.

        Raises:
            TrainingError: As for `load_state`.
        """
        self._optimizers.load_parameters(step, _without_loss(state)[0])

    def count_passes(self, *, packed: bool) -> int:
        """Returns how many forward passes all steps take, or would take if sequences shared them."""
        passes = replace(self._passes, packed=packed)
        return sum(passes.count(self._store, passes.groups(examples, self._lengths)) for examples in self.plan)

    def most_passes(self) -> int:
        """Returns how many groups of examples, which processes share out among them, a step has at most."""
        return max((len(self._passes.groups(examples, self._lengths)) for examples in self.plan), default=0)

    def count_tokens(self) -> tuple[int, int]:
        """Returns how many tokens the steps taken so far have seen, and over how many of them the loss was taken."""
        examples = [example for step in self.plan[: self.step] for example in step]
        return sum(self._lengths[example] for example in examples), sum(
            int(self._store.loss_tokens[example]) for example in examples
        )

    def _take_step(self, poll: Callable[[], None], on_pass: Callable[[int, int, int], None]) -> StepInfo:
        start = time.perf_counter()
        examples, steps, step = self.plan[self.step], len(self.plan), self.step + 1
        rate = self._optimizers.begin(step, steps)
        store, numbers = self._read(examples)
        lengths = self._lengths if store is self._store else store.lengths.tolist()
        groups = self._passes.groups(numbers, lengths)
        if self._stateful and not self.step % self._repeats:
            self._stateful.begin()
        # Dropout draws from torch's global generator: it is seeded by step and pass and given back untouched.
        with torch.random.fork_rng(devices=_cuda_index(self._device)):
            calls = StepCalls(poll, partial(on_pass, step), partial(self._seed_pass, step))
            score = self._loss.backward(store, groups, calls)
        sum_gradients(self._parameters, self._processes)
        norm = self._optimizers.clip()
        wrong = self.watch.look(step, score.loss, norm)
        if wrong:
            raise self._loss_error(wrong, examples, finite=math.isfinite(score.loss))
        self.whole = False
        self._optimizers.step()
        self.step, self.whole = step, True
        self._optimizers.forget_gradients()
        seconds = time.perf_counter() - start
        return StepInfo(
            step, steps, score.loss, score.tokens, score.loss_tokens, seconds, rate, norm, metrics=score.metrics
        )

    def _read(self, examples: Sequence[int]) -> tuple[TokenStore, Sequence[int]]:
        """Returns a store with a step's examples, masked where that is learnt, and their numbers in it."""
        if self._masking is None:
            return self._store, examples
        seen = zip(examples, self._epochs[self.step], strict=True)
        masked = [self._masking.masked(self._store[example], example, epoch) for example, epoch in seen]
        return TokenStore.of(masked), range(len(masked))

    def _seed_pass(self, step: int, group: int, number: int) -> None:
        torch.manual_seed(derived_seed(self._options.seed, "dropout", step, group, number))

    def _loss_error(self, wrong: str, examples: Sequence[int], *, finite: bool) -> LossError:
        """Says which of a step's examples have a loss that is no number, each by itself, where the step's is none."""
        told = ""
        if not finite:
            self._network.eval()
            store, numbers = self._read(examples)
            alone = self._loss_of(replace(self._passes, processes=ALONE))
            losses = {
                example: alone.evaluate(store, [[number]], lambda done, total: None).loss
                for example, number in zip(examples, numbers, strict=True)
            }
            bad = [example for example, loss in losses.items() if not math.isfinite(loss)]
            if 0 < len(bad) < len(losses):
                told, examples = f"; that of {len(bad)} of its {len(losses)} examples is no number by itself", bad
        error = LossError(
            f"step {self.step + 1}: {wrong}{told}",
            hint="A lower training.learning_rate or a longer training.warmup usually helps.",
        )
        error.step, error.good, error.examples = self.step + 1, self.watch.good, examples
        return error


def planned_steps(
    lengths: Sequence[int], options: TrainingSection, mixture: Mixture | None = None, repeats: int = 1
) -> list[list[int]]:
    """Returns the examples of every step of a training.

    Args:
        lengths: The tokens of each example.
        options: The recipe's training section.
        mixture: As for `Trainer`.
        repeats: As for `Trainer`.
    """
    different = plan_steps(
        lengths,
        seed=options.seed,
        tokens_per_step=options.tokens_per_step,
        epochs=options.epochs,
        steps=options.steps and -(-options.steps // repeats),
        mixture=mixture,
    )
    return [step for step in different for _ in range(repeats)][: options.steps]


def holdout_loss(
    network: nn.Module,
    store: TokenStore,
    device: torch.device,
    microbatch_tokens: int,
    poll: Callable[[int, int], None] = lambda done, total: None,
    *,
    packed: bool = True,
    loss: Callable[[Passes], StepLoss] | None = None,
    processes: Processes = ALONE,
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
        processes: The processes that share the passes; all of them call this.
    """
    passes = Passes(microbatch_tokens, packed, device, processes)
    measured = loss(passes) if loss else LikelihoodLoss(network, passes)
    return measured.evaluate(store, passes.all_groups(store), poll)


def _without_loss(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Returns what of a state is the optimizers', and what is the loss's own."""
    of_loss = {name: tensor for name, tensor in state.items() if name.startswith(_OF_LOSS)}
    others = {name: tensor for name, tensor in state.items() if name not in of_loss}
    return others, {name.removeprefix(_OF_LOSS): tensor for name, tensor in of_loss.items()}


def _cuda_index(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []
