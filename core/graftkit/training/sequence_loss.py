"""The loss of what a head says of whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from graftkit.interfaces.objective import SequenceObjective, SequenceScores
from graftkit.model.head import sequence_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.step_loss import OnPass, Passes, ScoreSums, StepScore, by_example

__all__ = ["SequenceLoss"]


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
        self, store: TokenStore, groups: Sequence[Sequence[int]], poll: Callable[[], None], on_pass: OnPass
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""

        def before(done: int, every: int) -> None:
            poll()
            if done:
                on_pass(done, every)

        total, count = ScoreSums(), sum(map(len, groups))
        for losses, metrics, batches in self._asked(store, groups, before):
            (losses.sum() / count).backward()  # type: ignore[no-untyped-call]
            total.add(losses.detach(), metrics, batches)
        return total.score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        total = ScoreSums()
        for losses, metrics, batches in self._asked(store, groups, poll):
            total.add(losses, metrics, batches)
        return total.score()

    def _asked(
        self, store: TokenStore, groups: Sequence[Sequence[int]], before: OnPass
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, torch.Tensor], list[PackedBatch]]]:
        """Yields the losses of each group's examples, `[examples]`, and the metrics, and its passes."""
        done, every = 0, self._passes.count(store, groups)
        for group in groups:
            examples = [store[number] for number in group]
            batches, scored = self._passes.batches(examples), []
            for batch in batches:
                before(done, every)
                inputs = forward_inputs(batch.sequences, packed=self._passes.packed)
                scored.append(sequence_scores(self._network, batch.sequences, inputs))
                done += 1
            scores = _scores(examples, torch.cat(scored))
            losses = self._objective.losses(scores)
            if losses.shape != (len(examples),):
                raise ValueError(
                    f"losses() returned {list(losses.shape)} for {len(examples)} examples: one each is due"
                )
            with torch.no_grad():
                metrics = self._objective.metrics(scores)
            yield losses, metrics, batches


def _scores(examples: Sequence[Example], values: torch.Tensor) -> SequenceScores:
    return SequenceScores(values.view(len(examples), -1, values.shape[1]), by_example(examples, values.device))
