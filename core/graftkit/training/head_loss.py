"""The loss of what a head says of sequences, or of their tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from graftkit.interfaces.objective import (
    LABEL_WEIGHTS,
    WEIGHT,
    MeanOf,
    Overall,
    SequenceObjective,
    SequenceScores,
    TokenObjective,
    TokenScores,
)
from graftkit.model.head import head_scores, sequence_scores, token_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import TARGET, TYPE, Example, TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.step_loss import (
    BeforePass,
    OnPass,
    Passes,
    ScoreSums,
    SeedPass,
    StepScore,
    before_each,
    by_example,
    loss_of_each,
)

__all__ = ["HeadLoss", "HeadPass", "OfSequences", "OfTokens"]


class HeadPass:
    """A pass forward and backward through a model with a head that gives scores, without an objective.

    It takes what a pass of training takes: of a few scores an objective takes next to nothing.

    Args:
        network: A transformers model with such a head.
        packed: Whether its attention is the packed one; otherwise each batch holds one sequence.
    """

    def __init__(self, network: nn.Module, *, packed: bool) -> None:
        self._network, self._packed = network, packed

    @torch.no_grad()
    def score(self, batch: PackedBatch) -> torch.Tensor:
        """Returns the head's scores of a batch, `[sequences, outputs]` or `[tokens, outputs]`."""
        return self._scores(batch)

    def backward(self, batch: PackedBatch, scale: float) -> torch.Tensor:
        """Adds the gradient of the scores' sum times `scale` to the parameters'; returns that sum times `scale`."""
        total = self._scores(batch).sum() * scale
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def _scores(self, batch: PackedBatch) -> torch.Tensor:
        return head_scores(self._network, batch.sequences, _inputs(batch, packed=self._packed))


def _inputs(batch: PackedBatch, *, packed: bool) -> dict[str, Any]:
    """Returns the keywords of the body's pass over a batch."""
    return forward_inputs(batch.sequences, packed=packed, token_type_ids=batch.by_token.get(TYPE))


class Scored(Protocol):
    """What the scores of a head are of, and how they are given to an objective.

    Attributes:
        mean_of: What the mean of losses is taken over.
    """

    mean_of: MeanOf

    def of_pass(self, network: Any, batch: PackedBatch, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns the scores of a pass that something is learnt of, `[some, outputs]`.

        Args:
            network: The model.
            batch: The pass.
            inputs: The keywords of the body's pass over it.
        """

    def given(self, examples: Sequence[Example], batches: Sequence[PackedBatch], values: torch.Tensor) -> Any:
        """Returns what an objective is given of a group.

        Args:
            examples: The group's.
            batches: Its passes.
            values: What `of_pass` gave of these, one after the other.
        """

    def by_example(self, scores: Any) -> list[torch.Tensor]:
        """Returns the values of each example of what `given` gave."""

    def of_all(self, store: TokenStore, order: Sequence[int], values: Sequence[torch.Tensor]) -> Any:
        """Returns what an objective is given of all examples together.

        Args:
            store: The examples.
            order: Their numbers.
            values: The values of each, in this order.
        """


class OfSequences:
    """Scores of whole sequences: `SequenceScores`.

    Args:
        label_weights: How much each label weighs where a text has it, which the objective is given, `[labels]`; None
            where all weigh alike.
    """

    mean_of: MeanOf = "examples"

    def __init__(self, label_weights: Sequence[float] | None = None) -> None:
        self._label_weights = label_weights

    def of_pass(self, network: Any, batch: PackedBatch, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns those of each sequence."""
        return sequence_scores(network, batch.sequences, inputs)

    def given(
        self, examples: Sequence[Example], batches: Sequence[PackedBatch], values: torch.Tensor
    ) -> SequenceScores:
        """Returns the scores with the further numbers of their examples."""
        return self._scores(values.view(len(examples), -1, values.shape[1]), by_example(examples, values.device))

    def by_example(self, scores: SequenceScores) -> list[torch.Tensor]:
        """Returns `[sequences, outputs]` of each example."""
        return list(scores.values)

    def of_all(self, store: TokenStore, order: Sequence[int], values: Sequence[torch.Tensor]) -> SequenceScores:
        """Returns the scores of all examples."""
        return self._scores(torch.stack(list(values)) if values else torch.zeros(0), _columns(store, order))

    def _scores(self, values: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> SequenceScores:
        if self._label_weights is None:
            return SequenceScores(values, columns)
        weights = torch.tensor(self._label_weights, device=values.device).expand(len(values), -1)
        return SequenceScores(values, {**columns, LABEL_WEIGHTS: weights})


class OfTokens:
    """Scores of the tokens in the loss: `TokenScores`.

    Args:
        labels: The tags in the order of their numbers.
    """

    mean_of: MeanOf = "tokens"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def of_pass(self, network: Any, batch: PackedBatch, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns those of the tokens in the loss."""
        return token_scores(network, batch.sequences, inputs)[batch.logit_positions]

    def given(self, examples: Sequence[Example], batches: Sequence[PackedBatch], values: torch.Tensor) -> TokenScores:
        """Returns the scores with the tags of their tokens."""
        tags = torch.cat([batch.labels for batch in batches])
        counts = torch.tensor([np.count_nonzero(example.loss_weight) for example in examples], device=tags.device)
        return self._scores(values, tags, counts, by_example(examples, values.device))

    def by_example(self, scores: TokenScores) -> list[torch.Tensor]:
        """Returns `[tokens, outputs]` of each example."""
        counts = scores.example.bincount(minlength=scores.examples).tolist()
        return list(torch.split(scores.values, counts))

    def of_all(self, store: TokenStore, order: Sequence[int], values: Sequence[torch.Tensor]) -> TokenScores:
        """Returns the scores of all examples."""
        examples = [store[number] for number in order]
        tags = [torch.from_numpy(example.by_token[TARGET][example.loss_mask]).long() for example in examples]
        counts = torch.tensor(list(map(len, values)), dtype=torch.int64)
        return self._scores(torch.cat(list(values)), torch.cat(tags), counts, _columns(store, order))

    def _scores(
        self,
        values: torch.Tensor,
        tags: torch.Tensor,
        counts: torch.Tensor,
        columns: Mapping[str, torch.Tensor],
    ) -> TokenScores:
        """Returns scores of examples that have so many tokens in the loss each, `[examples]`."""
        example = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return TokenScores(values, tags, example, len(counts), self._labels, columns)


def _columns(store: TokenStore, order: Sequence[int]) -> dict[str, torch.Tensor]:
    """Returns the columns by example of some examples of a store."""
    return {name: torch.from_numpy(column[list(order)]) for name, column in store.by_example.items()}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an objective said of the examples of a group.

    Attributes:
        scores: What it was given.
        losses: `[examples]`.
        weights: What each weighs in their mean, `[examples]`.
        metrics: `[examples]` each.
        batches: The passes that computed them.
    """

    scores: SequenceScores | TokenScores
    losses: torch.Tensor
    weights: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    batches: list[PackedBatch]

    def add_to(self, total: ScoreSums) -> None:
        """Adds it to the sums over a step or an evaluation."""
        losses = self.losses.detach() * self.weights
        total.add(losses, self.metrics, self.batches, self.weights.double().cpu().sum().item())


class HeadLoss:
    """The mean of the losses that an objective gives examples, or their tokens, by the scores of a head.

    The sum over a step is divided by the number of its examples, or of their tokens in the loss, whichever process and
    pass they are in. Where the store has a column of weights, each loss counts as often as its example weighs, as in
    torch's `cross_entropy(weight=...)`. There are a few scores, so that a pass is run once, forward and backward.

    Args:
        network: A transformers model with a head that gives scores.
        objective: The objective.
        passes: How examples are cut into passes.
        scored: What the scores are of.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: SequenceObjective | TokenObjective,
        passes: Passes,
        scored: Scored,
    ) -> None:
        self._network, self._passes, self._scored = network, passes, scored
        self._objective: Any = objective

    def backward(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        poll: Callable[[], None],
        on_pass: OnPass,
        seed_pass: SeedPass,
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""
        before = before_each(poll, on_pass, seed_pass)
        total, weight = ScoreSums(self._scored.mean_of), self._weight_of(store, groups)
        for asked in self._asked(store, groups, self._passes.own(store, groups), before):
            ((asked.losses * asked.weights).sum() / weight).backward()  # type: ignore[no-untyped-call]
            asked.add_to(total)
        return total.over(self._passes.processes).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        total, own = ScoreSums(self._scored.mean_of), self._passes.own(store, groups)
        found, values = list[float](), list[torch.Tensor]()
        for asked in self._asked(store, groups, own, lambda done, every, *_: poll(done, every)):
            asked.add_to(total)
            found += asked.losses.tolist()
            if isinstance(self._objective, Overall):
                values += [each.cpu() for each in self._scored.by_example(asked.scores)]
        score = total.over(self._passes.processes).score()
        found = loss_of_each(found, store, [n for group in own for n in groups[group]], self._scored.mean_of)
        losses = self._passes.gathered(groups, own, found)
        return replace(score, losses=losses, metrics={**score.metrics, **self._overall(store, groups, own, values)})

    def _overall(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        own: Sequence[int],
        values: Sequence[torch.Tensor],
    ) -> dict[str, float]:
        """Returns what the objective tells of all examples together, if it tells anything of that kind.

        Args:
            store: The examples.
            groups: Their numbers, by group.
            own: The numbers of the groups that this process has computed.
            values: The scores of each of their examples.
        """
        if not isinstance(self._objective, Overall):
            return {}
        if self._passes.processes.count > 1:
            gathered = self._passes.gathered(groups, own, [each.tolist() for each in values])
            values = [torch.tensor(each) for each in gathered]
        order = [number for group in groups for number in group]
        told = self._objective.overall(self._scored.of_all(store, order, values))
        return {name: value for name, value in told.items() if not math.isnan(value)}

    def _asked(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        numbers: Sequence[int],
        before: BeforePass,
    ) -> Iterator[_Asked]:
        """Yields what the objective says of some groups' examples, a group at a time.

        Args:
            store: The examples.
            groups: Their numbers, by group.
            numbers: The numbers of the groups.
            before: Called before each pass.
        """
        done, every = 0, self._passes.count(store, [groups[number] for number in numbers])
        for number in numbers:
            examples = [store[example] for example in groups[number]]
            batches, scored = self._passes.batches(examples), []
            for place, batch in enumerate(batches):
                before(done, every, number, place)
                inputs = _inputs(batch, packed=self._passes.packed)
                scored.append(self._scored.of_pass(self._network, batch, inputs))
                done += 1
            scores = self._scored.given(examples, batches, torch.cat(scored))
            losses = self._objective.losses(scores)
            with torch.no_grad():
                metrics = self._objective.metrics(scores)
            weights = scores.by_example.get(WEIGHT, torch.ones_like(losses))
            yield _Asked(scores, losses, weights.to(losses), metrics, batches)

    def _weight_of(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> float:
        """Returns what the sum over some groups is divided by: the weights of their examples, or of their tokens."""
        numbers = [number for group in groups for number in group]
        by_token = self._scored.mean_of == "tokens"
        weights = store.weight_sum if by_token else store.by_example.get(WEIGHT)
        return len(numbers) if weights is None else float(weights[numbers].sum(dtype=np.float64))
