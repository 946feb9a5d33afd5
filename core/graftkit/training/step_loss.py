"""What a step minimizes, and its gradient: the likelihood in one pass, or what an objective says of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import torch
from torch import nn

from graftkit.interfaces.objective import Objective, Scores
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch, alone, pack
from graftkit.training.loss import ScoredPass, TokenLoss
from graftkit.training.order import group_by_tokens

__all__ = [
    "REFERENCE",
    "LikelihoodLoss",
    "ObjectiveLoss",
    "OnPass",
    "Passes",
    "ScoreSums",
    "StepLoss",
    "StepScore",
    "by_example",
]

REFERENCE = "reference"
"""The column by token with the log-probabilities that the model gave as training started, float32."""

OnPass = Callable[[int, int], None]
"""Called with how many passes are done and how many there are."""


@dataclass(frozen=True, slots=True)
class StepScore:
    """What a step, or an evaluation, came to.

    Attributes:
        loss: What was minimized.
        tokens: The tokens of the examples.
        loss_tokens: Those in the loss.
        metrics: What else the objective tells, by name.
    """

    loss: float
    tokens: int
    loss_tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passes:
    """How examples are cut into forward passes.

    Attributes:
        microbatch_tokens: Tokens of a pass at most, unless one example alone has more.
        packed: Whether sequences share a pass, kept apart by the network's packed attention; else they run one by one.
        device: Where they are computed.
    """

    microbatch_tokens: int
    packed: bool
    device: torch.device

    def groups(self, examples: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Returns the examples that are computed together: those of one pass, or one whose sequences run one by one.

        Args:
            examples: Their numbers.
            lengths: The tokens of each example of the store, by number.
        """
        return group_by_tokens(examples, lengths, self.microbatch_tokens if self.packed else 0)

    def all_groups(self, store: TokenStore) -> list[list[int]]:
        """Returns the groups of all examples of a store, in their order."""
        return self.groups(range(len(store)), store.lengths.tolist())

    def count(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> int:
        """Returns how many passes some groups take."""
        return len(groups) if self.packed else sum(map(len, groups)) * store.sequences_per_example

    def batches(self, group: Sequence[Example]) -> list[PackedBatch]:
        """Returns the passes of a group: one for all of its sequences, or one for each."""
        if self.packed:
            return [pack(group, self.device)]
        return [pack([sequence], self.device) for example in group for sequence in alone(example)]


class StepLoss(Protocol):
    """The loss of some examples."""

    def backward(
        self, store: TokenStore, groups: Sequence[Sequence[int]], poll: Callable[[], None], on_pass: OnPass
    ) -> StepScore:
        """Adds the gradient of a step's loss to the parameters'; how its examples are grouped does not change it.

        Args:
            store: The examples.
            groups: The numbers of the step's, as `Passes.groups` gives them.
            poll: Called before each pass; raises to stop.
            on_pass: Called after each but the last with how many are done and how many there are.
        """

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Returns the same loss without a gradient.

        Args:
            store: The examples.
            groups: The numbers of those that are taken.
            poll: Called before each pass with how many are done and how many there are; raises to stop.
        """


class LikelihoodLoss:
    """The mean negative log-likelihood of the tokens in the loss, in nats, each with its weight.

    Args:
        network: The model.
        passes: How examples are cut into passes.
    """

    def __init__(self, network: nn.Module, passes: Passes) -> None:
        self._loss, self._passes = TokenLoss(network, packed=passes.packed), passes

    def backward(
        self, store: TokenStore, groups: Sequence[Sequence[int]], poll: Callable[[], None], on_pass: OnPass
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""
        scale = 1 / sum(float(store.weight_sum[number]) for group in groups for number in group)

        def before(done: int, every: int) -> None:
            poll()
            if done:
                on_pass(done, every)

        sums, tokens, loss_tokens = [], 0, 0
        for batch in self._batches(store, groups, before):
            sums.append(self._loss.backward(batch, scale))
            tokens, loss_tokens = tokens + batch.tokens, loss_tokens + len(batch.labels)
        return StepScore(_summed(sums), tokens, loss_tokens)

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        sums, weight_sum, tokens, loss_tokens = [], 0.0, 0, 0
        for batch in self._batches(store, groups, poll):
            sums.append(self._loss.sum(batch))
            weight_sum += batch.weight_sum
            tokens, loss_tokens = tokens + batch.tokens, loss_tokens + len(batch.labels)
        return StepScore(_summed(sums) / weight_sum, tokens, loss_tokens)

    def _batches(self, store: TokenStore, groups: Sequence[Sequence[int]], before: OnPass) -> Iterator[PackedBatch]:
        every, done = self._passes.count(store, groups), 0
        for group in groups:
            for batch in self._passes.batches([store[number] for number in group]):
                before(done, every)
                yield batch
                done += 1


def _summed(sums: Sequence[torch.Tensor]) -> float:
    """Returns the sum of scalars, which are fetched from the device together: one wait for it a step."""
    return math.fsum(torch.stack(list(sums)).double().tolist()) if sums else 0.0


class ObjectiveLoss:
    """The mean of the losses that an objective gives examples.

    Log-probabilities are computed without a graph through the output layer; the objective's gradient by each of them is
    then the weight of that token's gradient. Where all that an objective looks at together is one pass, the
    body runs once; else it runs a second time for the gradient, with the same dropout.

    Args:
        network: The model.
        objective: The objective.
        by_example: Whether the loss of an example depends on its own scores alone.
        passes: How examples are cut into passes.
    """

    def __init__(self, network: nn.Module, objective: Objective, passes: Passes, *, by_example: bool) -> None:
        self._loss = TokenLoss(network, packed=passes.packed)
        self._objective, self._by_example, self._passes = objective, by_example, passes

    def backward(
        self, store: TokenStore, groups: Sequence[Sequence[int]], poll: Callable[[], None], on_pass: OnPass
    ) -> StepScore:
        """Scores what the objective looks at together, asks it, and runs the gradient back."""
        total, done = ScoreSums(), 0
        count, every = sum(map(len, groups)), self._passes.count(store, groups)
        for chunk in self._chunks(groups):
            examples, batches = self._read(store, chunk)
            once = len(batches) == 1
            states, runs = [], []
            for batch in batches:
                poll()
                states.append(_random_state(self._passes.device))
                runs.append(self._loss.score(batch, learn=once))
            asked = _ask(self._objective, examples, batches, runs)
            total.add(asked.losses, asked.metrics, batches)
            (gradient,) = torch.autograd.grad(asked.losses.sum() / count, asked.logps)
            factors = torch.split(gradient, [len(batch.labels) for batch in batches])
            for batch, run, state, by_token in zip(batches, runs, states, factors, strict=True):
                if done:
                    on_pass(done, every)
                done += 1
                if once:
                    run.backward(by_token)
                elif by_token.any():
                    poll()
                    self._again(batch, state).backward(by_token)
        return total.score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Scores what the objective looks at together, and asks it."""
        total, done, every = ScoreSums(), 0, self._passes.count(store, groups)
        for chunk in self._chunks(groups):
            examples, batches = self._read(store, chunk)
            runs = []
            for batch in batches:
                poll(done, every)
                runs.append(self._loss.score(batch, learn=False))
                done += 1
            asked = _ask(self._objective, examples, batches, runs)
            total.add(asked.losses, asked.metrics, batches)
        return total.score()

    def _chunks(self, groups: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        """Returns the groups that the objective looks at together."""
        return [[group] for group in groups] if self._by_example else [groups]

    def _read(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> tuple[list[Example], list[PackedBatch]]:
        """Returns the examples of some groups, and the passes that compute them."""
        read = [[store[number] for number in group] for group in groups]
        return list(chain.from_iterable(read)), [batch for group in read for batch in self._passes.batches(group)]

    def _again(self, batch: PackedBatch, state: Sequence[torch.Tensor]) -> ScoredPass:
        """Runs a pass again as it ran first, so that dropout leaves the same numbers out."""
        _set_random_state(self._passes.device, state)
        return self._loss.score(batch, learn=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an objective said of some examples.

    Attributes:
        logps: What the losses are differentiated by, `[tokens]`.
        losses: `[examples]`.
        metrics: `[examples]` each.
    """

    logps: torch.Tensor
    losses: torch.Tensor
    metrics: Mapping[str, torch.Tensor]


def _ask(
    objective: Objective, examples: Sequence[Example], batches: Sequence[PackedBatch], scored: Sequence[ScoredPass]
) -> _Asked:
    with torch.enable_grad():
        scores = _scores(examples, batches, scored)
        losses = objective.losses(scores)
    if losses.shape != (len(examples),):
        raise ValueError(f"losses() returned {list(losses.shape)} for {len(examples)} examples: one loss each is due")
    with torch.no_grad():
        metrics = objective.metrics(scores)
    return _Asked(scores.logps, losses, metrics)


def _scores(examples: Sequence[Example], batches: Sequence[PackedBatch], scored: Sequence[ScoredPass]) -> Scores:
    sequences = sum(len(batch.sequences) for batch in batches)
    firsts = [sum(len(batch.sequences) for batch in batches[:number]) for number in range(len(batches))]
    owners = [batch.owners + first for batch, first in zip(batches, firsts, strict=True)]
    references = [batch.by_token[REFERENCE][batch.logit_positions + 1] for batch in batches if _has(batch)]
    return Scores(
        logps=torch.cat([run.logps for run in scored]).requires_grad_(),
        weights=torch.cat([batch.token_weights for batch in batches]),
        sequence=torch.cat(owners),
        sequences=sequences // len(examples),
        examples=len(examples),
        reference=torch.cat(references) if references else None,
        by_example=by_example(examples, owners[0].device),
    )


def by_example(examples: Sequence[Example], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the further numbers of some examples by name, `[examples]` each."""
    return {
        name: torch.tensor([example.by_example[name].item() for example in examples], device=device)
        for name in examples[0].by_example
    }


def _has(batch: PackedBatch) -> bool:
    return REFERENCE in batch.by_token


class ScoreSums:
    """Sums over what an objective looked at together."""

    def __init__(self) -> None:
        self._loss, self._examples, self._tokens, self._loss_tokens = 0.0, 0, 0, 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, losses: torch.Tensor, metrics: Mapping[str, torch.Tensor], batches: Sequence[PackedBatch]) -> None:
        """Adds what an objective said of some examples, and the passes that computed them.

        Args:
            losses: `[examples]`.
            metrics: `[examples]` each.
            batches: The passes.
        """
        self._loss += losses.sum().item()
        self._examples += len(losses)
        self._tokens += sum(batch.tokens for batch in batches)
        self._loss_tokens += sum(len(batch.labels) for batch in batches)
        for name, values in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            known = values[~values.isnan()]
            self._sums[name] = total + known.sum().item(), count + len(known)

    def score(self) -> StepScore:
        """Returns the means over what was added."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        loss = self._loss / self._examples if self._examples else math.nan
        return StepScore(loss, self._tokens, self._loss_tokens, means)


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """Returns the state of the generators that dropout draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(device: torch.device, state: Sequence[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
