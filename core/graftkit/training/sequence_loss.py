"""The loss of what a head says of whole sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from graftkit.interfaces.objective import LABEL_WEIGHTS, WEIGHT, Overall, SequenceObjective, SequenceScores
from graftkit.model.head import sequence_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import TYPE, Example, TokenStore
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
)

__all__ = ["HeadPass", "SequenceLoss"]


class HeadPass:
    """A pass forward and backward through a model with a head on sequences, without an objective.

    It takes what a pass of training takes: of a few scores of each sequence an objective takes next to nothing.

    Args:
        network: A transformers model with a head on sequences.
        packed: Whether its attention is the packed one; otherwise each batch holds one sequence.
    """

    def __init__(self, network: nn.Module, *, packed: bool) -> None:
        self._network, self._packed = network, packed

    @torch.no_grad()
    def score(self, batch: PackedBatch) -> torch.Tensor:
        """Returns the head's scores of a batch's sequences, `[sequences, outputs]`."""
        return self._scores(batch)

    def backward(self, batch: PackedBatch, scale: float) -> torch.Tensor:
        """Adds the gradient of the scores' sum times `scale` to the parameters'; returns that sum times `scale`."""
        total = self._scores(batch).sum() * scale
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def _scores(self, batch: PackedBatch) -> torch.Tensor:
        inputs = forward_inputs(batch.sequences, packed=self._packed, token_type_ids=batch.by_token.get(TYPE))
        return sequence_scores(self._network, batch.sequences, inputs)


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

    scores: SequenceScores
    losses: torch.Tensor
    weights: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    batches: list[PackedBatch]

    def add_to(self, total: ScoreSums) -> None:
        """Adds it to the sums over a step or an evaluation."""
        losses = self.losses.detach() * self.weights
        total.add(losses, self.metrics, self.batches, self.weights.double().cpu().sum().item())


class SequenceLoss:
    """The mean of the losses that an objective gives examples by the scores of their sequences.

    Where the store has a column of weights, each loss counts as often as its example weighs, as in torch's
    `cross_entropy(weight=...)`: the sum is divided by the weights of all examples of the step, whichever process and
    pass they are in. A sequence has a few scores, so that a pass is run once, forward and backward.

    Args:
        network: A transformers model with a head on sequences.
        objective: The objective.
        passes: How examples are cut into passes.
        label_weights: How much each label weighs where a text has it, which the objective is given, `[labels]`; None
            where all weigh alike.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: SequenceObjective,
        passes: Passes,
        label_weights: Sequence[float] | None = None,
    ) -> None:
        self._network, self._objective, self._passes = network, objective, passes
        self._label_weights = label_weights

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
        total, weight = ScoreSums(), _weight_of(store, groups)
        for asked in self._asked(store, groups, self._passes.own(store, groups), before):
            ((asked.losses * asked.weights).sum() / weight).backward()  # type: ignore[no-untyped-call]
            asked.add_to(total)
        return total.over(self._passes.processes).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        total, own, found, values = ScoreSums(), self._passes.own(store, groups), list[float](), list[torch.Tensor]()
        for asked in self._asked(store, groups, own, lambda done, every, *_: poll(done, every)):
            asked.add_to(total)
            found += asked.losses.tolist()
            if isinstance(self._objective, Overall):
                values.append(asked.scores.values.cpu())
        score = total.over(self._passes.processes).score()
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
            values: The scores of these, `[examples, sequences, outputs]` each.
        """
        if not isinstance(self._objective, Overall):
            return {}
        every = torch.cat(list(values)) if values else torch.zeros(0)
        if self._passes.processes.count > 1:
            every = torch.tensor(self._passes.gathered(groups, own, every.tolist()))
        order = [number for group in groups for number in group]
        columns = {name: torch.from_numpy(column[order]) for name, column in store.by_example.items()}
        told = self._objective.overall(SequenceScores(every, columns))
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
                inputs = forward_inputs(
                    batch.sequences, packed=self._passes.packed, token_type_ids=batch.by_token.get(TYPE)
                )
                scored.append(sequence_scores(self._network, batch.sequences, inputs))
                done += 1
            scores = self._scores(examples, torch.cat(scored))
            losses = self._objective.losses(scores)
            with torch.no_grad():
                metrics = self._objective.metrics(scores)
            weights = scores.by_example.get(WEIGHT, torch.ones_like(losses))
            yield _Asked(scores, losses, weights.to(losses), metrics, batches)

    def _scores(self, examples: Sequence[Example], values: torch.Tensor) -> SequenceScores:
        columns = by_example(examples, values.device)
        if self._label_weights is not None:
            columns[LABEL_WEIGHTS] = torch.tensor(self._label_weights, device=values.device).expand(len(examples), -1)
        return SequenceScores(values.view(len(examples), -1, values.shape[1]), columns)


def _weight_of(store: TokenStore, groups: Sequence[Sequence[int]]) -> float:
    """Returns what the examples of some groups weigh together: as many as they are where none weighs otherwise."""
    numbers = [number for group in groups for number in group]
    weights = store.by_example.get(WEIGHT)
    return len(numbers) if weights is None else float(weights[numbers].sum(dtype=np.float64))
