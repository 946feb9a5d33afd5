"""What a step minimizes, and its gradient: the likelihood in one pass, or what an objective says of scores."""

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

from graftkit.interfaces.objective import Minimizes, Objective, Scores
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch, alone, pack
from graftkit.training.loss import Candidates, ScoredPass, TokenLoss
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
    "ObjectiveLoss",
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
    "loss_of_each",
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


class ObjectiveLoss:
    """The mean of the losses that an objective gives examples, or their tokens.

    Log-probabilities are computed without a graph through the output layer; the objective's gradient by each of them is
    then the weight of that token's gradient. Where all that an objective looks at together is one pass, the
    body runs once; else it runs a second time for the gradient, with the same dropout.

    Args:
        network: The model.
        objective: The objective.
        passes: How examples are cut into passes.
        minimizes: What the mean is taken over, and what a loss depends on; not `likelihood`.
        temperature: What logits are divided by before the candidates of a teacher are scored, where the store has any.
        sampled_at: What they are divided by before the tokens themselves are scored.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        passes: Passes,
        minimizes: Minimizes = "examples",
        *,
        temperature: float = 1.0,
        sampled_at: float = 1.0,
    ) -> None:
        self._loss = TokenLoss(network, packed=passes.packed, temperature=sampled_at)
        self._objective, self._passes, self._temperature = objective, passes, temperature
        self._by_example = minimizes != "step"
        self._mean_of: MeanOf = "tokens" if minimizes == "tokens" else "examples"

    def backward(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        calls: StepCalls,
        count: float | None = None,
    ) -> StepScore:
        """Scores what the objective looks at together, asks it, and runs the gradient back.

        Args:
            store: As for every `StepLoss`.
            groups: As for every `StepLoss`.
            calls: As for every `StepLoss`.
            count: What the sum of all losses is divided by; how many there are when left out.
        """
        total, done = ScoreSums(self._mean_of), 0
        own = self._passes.own(store, groups)
        count = self._count(store, groups) if count is None else count
        every = self._passes.count(store, [groups[number] for number in own])
        for chunk in [[number] for number in own] if self._by_example else [range(len(groups))]:
            examples, passes = self._passes.read(store, groups, chunk, own)
            once = len(passes) == 1
            runs: list[ScoredPass | None] = []
            for each in passes:
                if each.own:
                    calls.begin(each.group, each.place)
                runs.append(self._score(each.batch, learn=once) if each.own else None)
            batches = [each.batch for each in passes]
            asked = _ask(self._objective, examples, batches, *self._scored(passes, runs))
            total.add(asked.losses, asked.metrics, batches)
            factors, by_candidates = asked.gradients(asked.losses.sum() / count)
            for each, run, by_logps, by_others in zip(passes, runs, factors, by_candidates, strict=True):
                if run is None:
                    continue
                if done:
                    calls.on_pass(done, every)
                done += 1
                if once:
                    run.backward(by_logps, by_others)
                elif by_logps.any() or (by_others is not None and by_others.any()):
                    calls.begin(each.group, each.place)  # so that dropout leaves the same numbers out
                    self._score(each.batch, learn=True).backward(by_logps, by_others)
        return (total.over(self._passes.processes) if self._by_example else total).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Scores what the objective looks at together, and asks it."""
        total, done, own = ScoreSums(self._mean_of), 0, self._passes.own(store, groups)
        every, losses = self._passes.count(store, [groups[number] for number in own]), list[float]()
        for chunk in [[number] for number in own] if self._by_example else [range(len(groups))]:
            examples, passes = self._passes.read(store, groups, chunk, own)
            runs: list[ScoredPass | None] = []
            for each in passes:
                if each.own:
                    poll(done, every)
                    done += 1
                runs.append(self._score(each.batch, learn=False) if each.own else None)
            batches = [each.batch for each in passes]
            asked = _ask(self._objective, examples, batches, *self._scored(passes, runs))
            total.add(asked.losses, asked.metrics, batches)
            numbers = [example for number in chunk for example in groups[number]]
            losses += loss_of_each(asked.losses.tolist(), store, numbers, self._mean_of)
        if not self._by_example:  # every process has looked at all examples
            return replace(total.score(), losses=losses)
        return replace(total.over(self._passes.processes).score(), losses=self._passes.gathered(groups, own, losses))

    def _count(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> float:
        """Returns what the sum of all losses of some groups is divided by."""
        numbers = [number for group in groups for number in group]
        return len(numbers) if self._mean_of == "examples" else sum(float(store.weight_sum[n]) for n in numbers)

    def _score(self, batch: PackedBatch, *, learn: bool) -> ScoredPass:
        """Scores a pass's tokens, and the candidates of a teacher where its columns have any."""
        ids = batch.by_token.get(TEACHER_IDS)
        wanted = Candidates(_in_loss(batch, ids).long(), self._temperature) if ids is not None else None
        return self._loss.score(batch, learn=learn, candidates=wanted)

    def _scored(
        self, passes: Sequence[OnePass], runs: Sequence[ScoredPass | None]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Returns what was scored in each pass; what other processes have scored of the same step is fetched first."""
        found = _of_runs(passes, runs)
        if not self._by_example:
            for scored in filter(None, found):
                together = torch.cat(scored).detach()
                self._passes.processes.sum_(together)
                scored[:] = torch.split(together, [len(values) for values in scored])
        return found


def _of_runs(
    passes: Sequence[OnePass], runs: Sequence[ScoredPass | None]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns the log-probabilities of each pass's tokens, and those of their candidates; zeros of one not run."""
    logps = [
        each.batch.token_weights.new_zeros(len(each.batch.labels)) if run is None else run.logps
        for each, run in zip(passes, runs, strict=True)
    ]
    candidates = [
        torch.zeros_like(_in_loss(each.batch, each.batch.by_token[TEACHER_LOGPS]))
        if run is None or run.candidates is None
        else run.candidates
        for each, run in zip(passes, runs, strict=True)
        if TEACHER_LOGPS in each.batch.by_token
    ]
    return logps, candidates


def _in_loss(batch: PackedBatch, column: torch.Tensor) -> torch.Tensor:
    """Returns what a column by token has of each token in the loss."""
    return column[batch.logit_positions + 1]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an objective said of some examples.

    Attributes:
        scores: What it was given.
        losses: `[examples]`.
        metrics: `[examples]` each.
        sizes: How many tokens in the loss each pass has.
    """

    scores: Scores
    losses: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    sizes: Sequence[int]

    def gradients(self, loss: torch.Tensor) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor | None]]:
        """Returns the gradient of a loss by each pass's log-probabilities, and by those of its candidates."""
        if self.scores.candidates is None:
            (by_logps,) = torch.autograd.grad(loss, self.scores.logps)
            return torch.split(by_logps, list(self.sizes)), [None] * len(self.sizes)
        given = (self.scores.logps, self.scores.candidates)
        by_logps, by_candidates = torch.autograd.grad(loss, given, materialize_grads=True)
        return torch.split(by_logps, list(self.sizes)), torch.split(by_candidates, list(self.sizes))


def _ask(
    objective: Objective,
    examples: Sequence[Example],
    batches: Sequence[PackedBatch],
    logps: Sequence[torch.Tensor],
    candidates: Sequence[torch.Tensor],
) -> _Asked:
    with torch.enable_grad():
        scores = _scores(examples, batches, logps, candidates)
        losses = objective.losses(scores)
    with torch.no_grad():
        metrics = objective.metrics(scores)
    return _Asked(scores, losses, metrics, [len(batch.labels) for batch in batches])


def _scores(
    examples: Sequence[Example],
    batches: Sequence[PackedBatch],
    logps: Sequence[torch.Tensor],
    candidates: Sequence[torch.Tensor],
) -> Scores:
    sequences = sum(len(batch.sequences) for batch in batches)
    firsts = [sum(len(batch.sequences) for batch in batches[:number]) for number in range(len(batches))]
    owners = [batch.owners + first for batch, first in zip(batches, firsts, strict=True)]
    return Scores(
        logps=torch.cat(list(logps)).detach().requires_grad_(),
        weights=torch.cat([batch.token_weights for batch in batches]),
        sequence=torch.cat(owners),
        sequences=sequences // len(examples),
        examples=len(examples),
        reference=_column(batches, REFERENCE),
        old=_column(batches, OLD),
        candidates=torch.cat(list(candidates)).detach().requires_grad_() if candidates else None,
        teacher=_column(batches, TEACHER_LOGPS),
        by_example=by_example(examples, owners[0].device),
    )


def _column(batches: Sequence[PackedBatch], name: str) -> torch.Tensor | None:
    """Returns what a column has of each token in the loss; None where the store has no such column."""
    found = [_in_loss(batch, batch.by_token[name]) for batch in batches if name in batch.by_token]
    return torch.cat(found) if found else None


def by_example(examples: Sequence[Example], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the further numbers of some examples by name, `[examples]` or `[examples, n]` each."""
    return {
        name: torch.from_numpy(np.stack([example.by_example[name] for example in examples])).to(device)
        for name in examples[0].by_example
    }


def loss_of_each(losses: Sequence[float], store: TokenStore, numbers: Sequence[int], mean_of: MeanOf) -> list[float]:
    """Returns the loss of each of some examples, of which the whole is the mean.

    Args:
        losses: What an objective gave each: its loss, or the sum over its tokens.
        store: The examples.
        numbers: Which of them these are.
        mean_of: Which of the two.
    """
    if mean_of == "examples":
        return list(losses)
    weights = store.weight_sum[np.asarray(numbers, np.int64)]
    return [loss / float(weight) if weight else math.nan for loss, weight in zip(losses, weights, strict=True)]


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
