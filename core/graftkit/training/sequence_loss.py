"""The loss of what a head says of whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from graftkit.interfaces.objective import SequenceObjective, SequenceScores
from graftkit.model.head import sequence_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import Example, TokenStore
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
        inputs = forward_inputs(batch.sequences, packed=self._packed)
        return sequence_scores(self._network, batch.sequences, inputs)


class SequenceLoss:
    """The mean of the losses that an objective gives examples by the scores of their sequences.

    A sequence has a few scores, so that a pass is run once, forward and backward.

    Args:
        network: A transformers model with a head on sequences.
        objective: The objective.
        passes: How examples are cut into passes.
    """

    def __init__(self, network: nn.Module, objective: SequenceObjective, passes: Passes) -> None:
        self._network, self._objective, self._passes = network, objective, passes

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
        total, count = ScoreSums(), sum(map(len, groups))
        for losses, metrics, batches in self._asked(store, groups, self._passes.own(store, groups), before):
            (losses.sum() / count).backward()  # type: ignore[no-untyped-call]
            total.add(losses.detach(), metrics, batches)
        return total.over(self._passes.processes).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        total, own, found = ScoreSums(), self._passes.own(store, groups), list[float]()
        for losses, metrics, batches in self._asked(store, groups, own, lambda done, every, *_: poll(done, every)):
            total.add(losses, metrics, batches)
            found += losses.tolist()
        score = total.over(self._passes.processes).score()
        return replace(score, losses=self._passes.gathered(groups, own, found))

    def _asked(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        numbers: Sequence[int],
        before: BeforePass,
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, torch.Tensor], list[PackedBatch]]]:
        """Yields the losses of some groups' examples, `[examples]` each, and the metrics, and their passes.

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
                inputs = forward_inputs(batch.sequences, packed=self._passes.packed)
                scored.append(sequence_scores(self._network, batch.sequences, inputs))
                done += 1
            scores = _scores(examples, torch.cat(scored))
            losses = self._objective.losses(scores)
            with torch.no_grad():
                metrics = self._objective.metrics(scores)
            yield losses, metrics, batches


def _scores(examples: Sequence[Example], values: torch.Tensor) -> SequenceScores:
    return SequenceScores(values.view(len(examples), -1, values.shape[1]), by_example(examples, values.device))
