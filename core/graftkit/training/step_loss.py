"""What a step minimizes and its gradient: what every loss has in common, and the likelihood, which takes one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch, alone, pack
from graftkit.training.loss import TokenLoss
from graftkit.training.order import group_by_tokens
from graftkit.training.processes import ALONE, Processes, shares

__all__ = [
    "OLD",
    "REFERENCE",
    "TEACHER_IDS",
    "TEACHER_LOGPS",
    "BeforePass",
    "LikelihoodLoss",
    "MeanOf",
    "OnPass",
    "OnePass",
    "Passes",
    "ScoreSums",
    "SeedPass",
    "StatefulLoss",
    "StepCalls",
    "StepLoss",
    "StepScore",
    "by_example",
]

REFERENCE = "reference"
"""The column by token with the log-probabilities that the model gave as training started, float32."""

OLD = "old"
"""The column by token with the log-probabilities by the model that sampled the tokens, float32."""

TEACHER_IDS = "teacher_ids"
"""The column by token with the tokens that a teacher finds likeliest in its place, `[tokens, k]`, int32."""

TEACHER_LOGPS = "teacher_logps"
"""The column by token with the teacher's log-probabilities of these, `[tokens, k]`, float32, descending."""

Value = TypeVar("Value")

MeanOf = Literal["examples", "tokens"]
"""What a mean over a step is taken over."""

OnPass = Callable[[int, int], None]
"""Called with how many passes are done and how many there are."""

SeedPass = Callable[[int, int], None]
"""Called before each pass of a step with the number of its group among all of the step's, and its number there."""

BeforePass = Callable[[int, int, int, int], None]
"""Called before each pass with how many are done and how many there are, and with what `SeedPass` is called with."""


@dataclass(frozen=True, slots=True)
class StepCalls:
    """What a loss calls while it computes a step.

    Attributes:
        poll: Called before each pass; raises to stop.
        on_pass: Called after each but the last with how many are done and how many there are, of this process's.
        seed_pass: Called before each pass, and again where it runs again, with the number of its group and its number
            in that: seeds what dropout draws from, so that no draw depends on the passes before.
    """

    poll: Callable[[], None] = lambda: None
    on_pass: OnPass = lambda done, every: None
    seed_pass: SeedPass = lambda group, place: None

    def before(self, done: int, every: int, group: int, place: int) -> None:
        """Does before each pass what is to be done then, and what after the one before it: a `BeforePass`."""
        self.poll()
        if done:
            self.on_pass(done, every)
        self.seed_pass(group, place)

    def begin(self, group: int, place: int) -> None:
        """Does what is to be done before a pass alone."""
        self.poll()
        self.seed_pass(group, place)

    def counted_from(self, passes: int) -> StepCalls:
        """Returns the same where so many passes are done before the first."""
        return replace(self, on_pass=lambda done, every: self.on_pass(passes + done, passes + every))


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
class OnePass:
    """A pass of a step, or of an evaluation.

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

    def gathered(self, groups: Sequence[Sequence[int]], own: Sequence[int], values: Sequence[Value]) -> list[Value]:
        """Returns a value of each example, in the order of the groups, of what every process has found out.

        Args:
            groups: The examples' numbers, by group.
            own: The numbers of the groups that this process has computed.
            values: What it found out of their examples, in this order, as JSON.
        """
        found: dict[int, list[Value]] = {}
        for numbers, theirs in self.processes.gather([list(own), list(values)]):
            rest = iter(theirs)
            found |= {number: list(islice(rest, len(groups[number]))) for number in numbers}
        return list(chain.from_iterable(found[number] for number in range(len(groups))))

    def summed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the sum of numbers over all processes, each of which has found out some and has 0 for the others."""
        if self.processes.count == 1:
            return values
        found = torch.from_numpy(values).to(self.device)
        self.processes.sum_(found)
        return found.cpu().numpy()

    def count(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> int:
        """Returns how many passes some groups take."""
        return len(groups) if self.packed else sum(map(len, groups)) * store.sequences_per_example

    def batches(self, group: Sequence[Example]) -> list[PackedBatch]:
        """Returns the passes of a group: one for all of its sequences, or one for each."""
        if self.packed:
            return [pack(group, self.device)]
        return [pack([sequence], self.device) for example in group for sequence in alone(example)]

    def read(
        self, store: TokenStore, groups: Sequence[Sequence[int]], chunk: Sequence[int], own: Sequence[int]
    ) -> tuple[list[Example], list[OnePass]]:
        """Returns the examples of some groups, and their passes.

        Args:
            store: The examples.
            groups: Their numbers, by group.
            chunk: The numbers of the groups that are read.
            own: The numbers of those that this process computes.
        """
        read = {number: [store[example] for example in groups[number]] for number in chunk}
        return list(chain.from_iterable(read.values())), [
            OnePass(number, place, batch, number in own)
            for number, examples in read.items()
            for place, batch in enumerate(self.batches(examples))
        ]


class StepLoss(Protocol):
    """The loss of some examples."""

    def backward(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        calls: StepCalls,
    ) -> StepScore:
        """Adds the gradient of a step's loss to the parameters'; how its examples are grouped does not change it.

        Where several processes share the step, it is the part of this one's passes; the score is the whole step's.

        Args:
            store: The examples.
            groups: The numbers of the step's, as `Passes.groups` gives them.
            calls: What is called meanwhile.
        """

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Returns the same loss without a gradient.

        Where several processes share it, the score is that of all passes, bit for bit as one process adds them up.

        Args:
            store: The examples.
            groups: The numbers of those that are taken.
            poll: Called before each pass with how many are done and how many there are; raises to stop.
        """


@runtime_checkable
class StatefulLoss(Protocol):
    """A loss that keeps something of the first of several steps with the same examples for those that follow it."""

    def begin(self) -> None:
        """Says that the next step is the first of such steps."""

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what the next step takes over, by name, where it is not the first."""

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state` gave.

        Raises:
            TrainingError: It is no such state.
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
        calls: StepCalls,
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""
        scale = 1 / sum(float(store.weight_sum[number]) for group in groups for number in group)
        sums: list[torch.Tensor] = []
        tokens, loss_tokens = 0, 0
        for batch in self._batches(store, groups, self._passes.own(store, groups), calls.before):
            sums.append(self._loss.backward(batch, scale))
            tokens, loss_tokens = tokens + batch.tokens, loss_tokens + len(batch.labels)
        found = self._passes.processes.gather([_total(_fetched(sums)), tokens, loss_tokens])
        losses, tokens_of, loss_tokens_of = zip(*found, strict=True)
        return StepScore(_total(losses), sum(tokens_of), sum(loss_tokens_of))

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
        loss = _total(sums) / _total(of_weights)
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


def _total(values: Iterable[float]) -> float:
    """Returns the exact sum, whose order does not matter; of numbers that have none what adding them up gives."""
    numbers = list(values)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # too large, or infinities of both signs
        return sum(numbers)


def _fetched(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Returns scalars, which are fetched from the device together: one wait for it a step."""
    return torch.stack(list(scalars)).cpu().double().tolist() if scalars else []


def _together(tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Returns tensors of one shape on the CPU, each in its type: one wait for the device where that is the same."""
    if len({(tensor.dtype, tensor.device) for tensor in tensors}) == 1:
        return torch.stack(list(tensors)).cpu().unbind()
    return [tensor.cpu() for tensor in tensors]


def by_example(examples: Sequence[Example], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the further numbers of some examples by name, `[examples]` or `[examples, n]` each."""
    return {
        name: torch.from_numpy(np.stack([example.by_example[name] for example in examples])).to(device)
        for name in examples[0].by_example
    }


class ScoreSums:
    """Sums over what an objective looked at together; in which order it is added does not matter.

    Args:
        mean_of: What the means are taken over.
    """

    def __init__(self, mean_of: MeanOf = "examples") -> None:
        self._mean_of = mean_of
        self._tokens, self._loss_tokens = 0, 0
        self._losses: list[tuple[float, float]] = []
        self._sums: dict[str, list[tuple[float, float]]] = {}

    def add(
        self,
        losses: torch.Tensor,
        metrics: Mapping[str, torch.Tensor],
        batches: Sequence[PackedBatch],
        weight: float | None = None,
    ) -> None:
        """Adds what an objective said of some examples, and the passes that computed them.

        Args:
            losses: `[examples]`.
            metrics: `[examples]` each; NaN leaves one out, which is for means over examples alone.
            batches: The passes.
            weight: What the examples, or their tokens, weigh together in the mean of the losses; as in that of the
                metrics when None.
        """
        weights = sum(batch.weight_sum for batch in batches)
        every = len(losses) if self._mean_of == "examples" else weights
        losses, *told = _together([losses, *metrics.values()])
        self._losses.append((losses.sum().item(), every if weight is None else weight))
        self._tokens += sum(batch.tokens for batch in batches)
        self._loss_tokens += sum(len(batch.labels) for batch in batches)
        for name, values in zip(metrics, told, strict=True):
            known = values[~values.isnan()]
            count = len(known) if self._mean_of == "examples" else weights
            self._sums.setdefault(name, []).append((known.sum().item(), count))

    def over(self, processes: Processes) -> ScoreSums:
        """Returns the sums over what all processes have looked at."""
        found = ScoreSums(self._mean_of)
        for losses, tokens, loss_tokens, sums in processes.gather(
            [self._losses, self._tokens, self._loss_tokens, self._sums]
        ):
            found._losses += losses
            found._tokens, found._loss_tokens = found._tokens + tokens, found._loss_tokens + loss_tokens
            for name, parts in sums.items():
                found._sums.setdefault(name, []).extend(parts)
        return found

    def score(self) -> StepScore:
        """Returns the means over what was added."""
        means = {name: _mean(parts) for name, parts in self._sums.items() if any(count for _, count in parts)}
        loss = _mean(self._losses)
        return StepScore(loss, self._tokens, self._loss_tokens, means)


def _mean(parts: Sequence[tuple[float, float]]) -> float:
    """Returns the mean of sums and what each is a sum over; no number where that is nothing."""
    count = _total(number for _, number in parts)
    return _total(total for total, _ in parts) / count if count else math.nan
