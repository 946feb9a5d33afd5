"""What a step minimizes, and its gradient: the likelihood in one pass, or what an objective says of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Protocol

import numpy as np
import torch
from torch import nn

from graftkit.interfaces.objective import Objective, Scores
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch, alone, pack
from graftkit.training.loss import ScoredPass, TokenLoss
from graftkit.training.order import group_by_tokens
from graftkit.training.processes import ALONE, Processes, shares

__all__ = [
    "REFERENCE",
    "BeforePass",
    "LikelihoodLoss",
    "ObjectiveLoss",
    "OnPass",
    "Passes",
    "ScoreSums",
    "SeedPass",
    "StepLoss",
    "StepScore",
    "before_each",
    "by_example",
]

REFERENCE = "reference"
"""The column by token with the log-probabilities that the model gave as training started, float32."""

OnPass = Callable[[int, int], None]
"""Called with how many passes are done and how many there are."""

SeedPass = Callable[[int, int], None]
"""Called before each pass of a step with the number of its group among all of the step's, and its number there."""

BeforePass = Callable[[int, int, int, int], None]
"""Called before each pass with how many are done and how many there are, and with what `SeedPass` is called with."""


def before_each(poll: Callable[[], None], on_pass: OnPass, seed_pass: SeedPass) -> BeforePass:
    """Returns what does before each pass what `StepLoss.backward` says of these."""

    def before(done: int, every: int, group: int, place: int) -> None:
        poll()
        if done:
            on_pass(done, every)
        seed_pass(group, place)

    return before


@dataclass(frozen=True, slots=True)
class StepScore:
    """What a step, or an evaluation, came to.

    Attributes:
        loss: What was minimized.
        tokens: The tokens of the examples.
        loss_tokens: Those in the loss.
        metrics: What else the objective tells, by name.
        losses: Of an evaluation the loss of each example, in the order of its groups; a step tells none.
    """

    loss: float
    tokens: int
    loss_tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Passes:
    """How examples are cut into forward passes.

    Attributes:
        microbatch_tokens: Tokens of a pass at most, unless one example alone has more.
        packed: Whether sequences share a pass, kept apart by the network's packed attention; else they run one by one.
        device: Where they are computed.
        processes: The processes that share a step's passes.
    """

    microbatch_tokens: int
    packed: bool
    device: torch.device
    processes: Processes = ALONE

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

    def own(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> list[int]:
        """Returns the numbers of those groups that this process computes."""
        if self.processes.count == 1:
            return list(range(len(groups)))
        starts = store.offsets
        tokens = [sum(int(starts[example + 1] - starts[example]) for example in group) for group in groups]
        return shares(tokens, self.processes.count)[self.processes.rank]

    def gathered(self, groups: Sequence[Sequence[int]], own: Sequence[int], values: Sequence[float]) -> list[float]:
        """Returns a value of each example, in the order of the groups, of what every process has found out.

        Args:
            groups: The examples' numbers, by group.
            own: The numbers of the groups that this process has computed.
            values: What it found out of their examples, in this order.
        """
        found: dict[int, list[float]] = {}
        for numbers, theirs in self.processes.gather([list(own), list(values)]):
            rest = iter(theirs)
            found |= {number: list(islice(rest, len(groups[number]))) for number in numbers}
        return list(chain.from_iterable(found[number] for number in range(len(groups))))

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
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        poll: Callable[[], None],
        on_pass: OnPass,
        seed_pass: SeedPass,
    ) -> StepScore:
        """Adds the gradient of a step's loss to the parameters'; how its examples are grouped does not change it.

        Where several processes share the step, it is the part of this one's passes; the score is the whole step's.

        Args:
            store: The examples.
            groups: The numbers of the step's, as `Passes.groups` gives them.
            poll: Called before each pass; raises to stop.
            on_pass: Called after each but the last with how many are done and how many there are, of this process's.
            seed_pass: Called before each pass, and again where it runs again, with the number of its group and its
                number in that: seeds what dropout draws from, so that no draw depends on the passes before.
        """

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Returns the same loss without a gradient.

        Where several processes share it, the score is that of all passes, bit for bit as one process adds them up.

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
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        poll: Callable[[], None],
        on_pass: OnPass,
        seed_pass: SeedPass,
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""
        scale = 1 / sum(float(store.weight_sum[number]) for group in groups for number in group)
        sums: list[torch.Tensor] = []
        tokens, loss_tokens, before = 0, 0, before_each(poll, on_pass, seed_pass)
        for batch in self._batches(store, groups, self._passes.own(store, groups), before):
            sums.append(self._loss.backward(batch, scale))
            tokens, loss_tokens = tokens + batch.tokens, loss_tokens + len(batch.labels)
        found = self._passes.processes.gather([math.fsum(_fetched(sums)), tokens, loss_tokens])
        losses, tokens_of, loss_tokens_of = zip(*found, strict=True)
        return StepScore(math.fsum(losses), sum(tokens_of), sum(loss_tokens_of))

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        values: list[torch.Tensor] = []
        weights: list[torch.Tensor] = []
        owners: list[torch.Tensor] = []
        tokens, sequences, own = 0, 0, self._passes.own(store, groups)
        for batch in self._batches(store, groups, own, lambda done, every, *_: poll(done, every)):
            values.append(self._loss.score(batch, learn=False).logps * -batch.token_weights)
            weights.append(batch.token_weights)
            owners.append((batch.owners + sequences) // store.sequences_per_example)
            tokens, sequences = tokens + batch.tokens, sequences + len(batch.sequences)
        examples = sequences // store.sequences_per_example
        sums, of_weights = (
            np.array(self._passes.gathered(groups, own, _sums_of(owners, each, examples))) for each in (values, weights)
        )
        found = self._passes.processes.gather([tokens, sum(map(len, values))])
        with np.errstate(invalid="ignore"):  # of an example without a token in the loss it is no number
            losses = (sums / of_weights).tolist()
        loss = math.fsum(sums) / math.fsum(of_weights)  # whose order does not matter
        tokens_of, loss_tokens_of = zip(*found, strict=True)
        return StepScore(loss, sum(tokens_of), sum(loss_tokens_of), losses=losses)

    def _batches(
        self, store: TokenStore, groups: Sequence[Sequence[int]], numbers: Sequence[int], before: BeforePass
    ) -> Iterator[PackedBatch]:
        """Yields the passes of those groups."""
        every, done = self._passes.count(store, [groups[number] for number in numbers]), 0
        for number in numbers:
            for place, batch in enumerate(self._passes.batches([store[example] for example in groups[number]])):
                before(done, every, number, place)
                yield batch
                done += 1


def _sums_of(owners: Sequence[torch.Tensor], values: Sequence[torch.Tensor], examples: int) -> list[float]:
    """Returns the sum of each example's values, `[tokens]` of each pass; `owners` says whose they are."""
    if not examples:
        return []
    of_tokens = torch.cat(list(values)).cpu().double().numpy()
    sums: list[float] = np.bincount(torch.cat(list(owners)).cpu().numpy(), of_tokens, examples).tolist()
    return sums


def _fetched(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Returns scalars, which are fetched from the device together: one wait for it a step."""
    return torch.stack(list(scalars)).double().tolist() if scalars else []


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
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        poll: Callable[[], None],
        on_pass: OnPass,
        seed_pass: SeedPass,
    ) -> StepScore:
        """Scores what the objective looks at together, asks it, and runs the gradient back."""
        total, done = ScoreSums(), 0
        own = self._passes.own(store, groups)
        count, every = sum(map(len, groups)), self._passes.count(store, [groups[number] for number in own])
        for chunk in [[number] for number in own] if self._by_example else [range(len(groups))]:
            examples, passes = self._read(store, groups, chunk, own)
            once = len(passes) == 1
            runs: list[ScoredPass | None] = []
            for each in passes:
                if each.own:
                    poll()
                    seed_pass(each.group, each.place)
                runs.append(self._loss.score(each.batch, learn=once) if each.own else None)
            batches = [each.batch for each in passes]
            asked = _ask(self._objective, examples, batches, self._logps(passes, runs))
            total.add(asked.losses, asked.metrics, batches)
            (gradient,) = torch.autograd.grad(asked.losses.sum() / count, asked.logps)
            factors = torch.split(gradient, [len(batch.labels) for batch in batches])
            for each, run, by_token in zip(passes, runs, factors, strict=True):
                if run is None:
                    continue
                if done:
                    on_pass(done, every)
                done += 1
                if once:
                    run.backward(by_token)
                elif by_token.any():
                    poll()
                    seed_pass(each.group, each.place)  # so that dropout leaves the same numbers out
                    self._loss.score(each.batch, learn=True).backward(by_token)
        return (total.over(self._passes.processes) if self._by_example else total).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Scores what the objective looks at together, and asks it."""
        total, done, own = ScoreSums(), 0, self._passes.own(store, groups)
        every, losses = self._passes.count(store, [groups[number] for number in own]), list[float]()
        for chunk in [[number] for number in own] if self._by_example else [range(len(groups))]:
            examples, passes = self._read(store, groups, chunk, own)
            runs: list[ScoredPass | None] = []
            for each in passes:
                if each.own:
                    poll(done, every)
                    done += 1
                runs.append(self._loss.score(each.batch, learn=False) if each.own else None)
            batches = [each.batch for each in passes]
            asked = _ask(self._objective, examples, batches, self._logps(passes, runs))
            total.add(asked.losses, asked.metrics, batches)
            losses += asked.losses.tolist()
        if not self._by_example:  # every process has looked at all examples
            return replace(total.score(), losses=losses)
        return replace(total.over(self._passes.processes).score(), losses=self._passes.gathered(groups, own, losses))

    def _read(
        self, store: TokenStore, groups: Sequence[Sequence[int]], chunk: Sequence[int], own: Sequence[int]
    ) -> tuple[list[Example], list[_Pass]]:
        """Returns the examples of some groups, and their passes."""
        read = {number: [store[example] for example in groups[number]] for number in chunk}
        return list(chain.from_iterable(read.values())), [
            _Pass(number, place, batch, number in own)
            for number, examples in read.items()
            for place, batch in enumerate(self._passes.batches(examples))
        ]

    def _logps(self, passes: Sequence[_Pass], runs: Sequence[ScoredPass | None]) -> list[torch.Tensor]:
        """Returns what was scored in each pass; what other processes have scored of the same step is fetched first."""
        logps = [
            each.batch.token_weights.new_zeros(len(each.batch.labels)) if run is None else run.logps
            for each, run in zip(passes, runs, strict=True)
        ]
        if self._by_example:
            return logps
        together = torch.cat(logps).detach()
        self._passes.processes.sum_(together)
        return list(torch.split(together, [len(values) for values in logps]))


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass of a step.

    Attributes:
        group: The number of its group among the step's.
        place: Its number in that group.
        batch: Its sequences.
        own: Whether this process computes it.
    """

    group: int
    place: int
    batch: PackedBatch
    own: bool


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
    objective: Objective, examples: Sequence[Example], batches: Sequence[PackedBatch], logps: Sequence[torch.Tensor]
) -> _Asked:
    with torch.enable_grad():
        scores = _scores(examples, batches, logps)
        losses = objective.losses(scores)
    if losses.shape != (len(examples),):
        raise ValueError(f"losses() returned {list(losses.shape)} for {len(examples)} examples: one loss each is due")
    with torch.no_grad():
        metrics = objective.metrics(scores)
    return _Asked(scores.logps, losses, metrics)


def _scores(examples: Sequence[Example], batches: Sequence[PackedBatch], logps: Sequence[torch.Tensor]) -> Scores:
    sequences = sum(len(batch.sequences) for batch in batches)
    firsts = [sum(len(batch.sequences) for batch in batches[:number]) for number in range(len(batches))]
    owners = [batch.owners + first for batch, first in zip(batches, firsts, strict=True)]
    references = [batch.by_token[REFERENCE][batch.logit_positions + 1] for batch in batches if _has(batch)]
    return Scores(
        logps=torch.cat(list(logps)).detach().requires_grad_(),
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
    """Sums over what an objective looked at together; in which order it is added does not matter."""

    def __init__(self) -> None:
        self._examples, self._tokens, self._loss_tokens = 0, 0, 0
        self._losses: list[float] = []
        self._sums: dict[str, list[tuple[float, int]]] = {}

    def add(self, losses: torch.Tensor, metrics: Mapping[str, torch.Tensor], batches: Sequence[PackedBatch]) -> None:
        """Adds what an objective said of some examples, and the passes that computed them.

        Args:
            losses: `[examples]`.
            metrics: `[examples]` each.
            batches: The passes.
        """
        self._losses.append(losses.sum().item())
        self._examples += len(losses)
        self._tokens += sum(batch.tokens for batch in batches)
        self._loss_tokens += sum(len(batch.labels) for batch in batches)
        for name, values in metrics.items():
            known = values[~values.isnan()]
            self._sums.setdefault(name, []).append((known.sum().item(), len(known)))

    def over(self, processes: Processes) -> ScoreSums:
        """Returns the sums over what all processes have looked at."""
        found = ScoreSums()
        for losses, examples, tokens, loss_tokens, sums in processes.gather(
            [self._losses, self._examples, self._tokens, self._loss_tokens, self._sums]
        ):
            found._losses += losses
            found._examples += examples
            found._tokens, found._loss_tokens = found._tokens + tokens, found._loss_tokens + loss_tokens
            for name, parts in sums.items():
                found._sums.setdefault(name, []).extend(parts)
        return found

    def score(self) -> StepScore:
        """Returns the means over what was added."""
        counts = {name: sum(count for _, count in parts) for name, parts in self._sums.items()}
        means = {
            name: math.fsum(total for total, _ in parts) / counts[name]
            for name, parts in self._sums.items()
            if counts[name]
        }
        loss = math.fsum(self._losses) / self._examples if self._examples else math.nan
        return StepScore(loss, self._tokens, self._loss_tokens, means)
