"""The loss of what a head says of sequences, or of their tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftkit.interfaces.objective import Overall, SequenceObjective, TokenObjective
from graftkit.interfaces.scores import LABEL, SequenceScores, TokenScores
from graftkit.model.head import head_scores, sequence_scores, token_scores
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import TARGET, TYPE, Example, TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.step_loss import (
    BeforePass,
    MeanOf,
    OnPass,
    Passes,
    ScoreSums,
    StepCalls,
    StepScore,
    by_example,
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

    def weights(self, store: TokenStore, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Returns what the sum of some examples' losses is divided by for each of them, `[examples]`.

        Args:
            store: The examples.
            numbers: Which of them.
        """


class OfSequences:
    """Scores of whole sequences: `SequenceScores`.

    Args:
        label_weights: What losses are multiplied by where a text has each label, `[labels]`; None where all weigh
            alike.
    """

    mean_of: MeanOf = "examples"

    def __init__(self, label_weights: Sequence[float] | None = None) -> None:
        self._label_weights = _as_row(label_weights)

    def of_pass(self, network: Any, batch: PackedBatch, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns those of each sequence."""
        return sequence_scores(network, batch.sequences, inputs)

    def given(
        self, examples: Sequence[Example], batches: Sequence[PackedBatch], values: torch.Tensor
    ) -> SequenceScores:
        """Returns the scores with the further numbers of their examples."""
        of_each = values.view(len(examples), -1, values.shape[1])
        return SequenceScores(of_each, by_example(examples, values.device), _on(self._label_weights, values.device))

    def weights(self, store: TokenStore, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Returns what the label of each example weighs; 1 where it has none, or may have several."""
        column = store.by_example.get(LABEL)
        if self._label_weights is None or column is None:
            return np.ones(len(numbers))
        return self._label_weights.numpy()[column[list(numbers)]].astype(np.float64)


class OfTokens:
    """Scores of the tokens in the loss: `TokenScores`.

    Args:
        labels: The tags in the order of their numbers.
        label_weights: What the loss of a token with each tag is multiplied by, `[labels]`; None where all weigh alike.
    """

    mean_of: MeanOf = "tokens"

    def __init__(self, labels: Sequence[str], label_weights: Sequence[float] | None = None) -> None:
        self._labels, self._label_weights = labels, _as_row(label_weights)

    def of_pass(self, network: Any, batch: PackedBatch, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns those of the tokens in the loss."""
        return token_scores(network, batch.sequences, inputs)[batch.logit_positions]

    def given(self, examples: Sequence[Example], batches: Sequence[PackedBatch], values: torch.Tensor) -> TokenScores:
        """Returns the scores with the tags of their tokens."""
        tags = torch.cat([batch.labels for batch in batches])
        counts = torch.tensor([np.count_nonzero(example.loss_weight) for example in examples], device=tags.device)
        example = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        columns, weights = by_example(examples, values.device), _on(self._label_weights, values.device)
        return TokenScores(values, tags, example, len(counts), self._labels, columns, weights)

    def weights(self, store: TokenStore, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Returns the sum of what the tags of each example weigh."""
        if self._label_weights is None:
            return store.weight_sum[list(numbers)]
        row, tags, learnt = self._label_weights.numpy(), store.by_token[TARGET], store.loss_weight
        tokens = (slice(*store.offsets[number : number + 2]) for number in numbers)
        return np.array([row[tags[each][learnt[each] != 0]].sum(dtype=np.float64) for each in tokens])


def _as_row(label_weights: Sequence[float] | None) -> torch.Tensor | None:
    return None if label_weights is None else torch.tensor(label_weights, dtype=torch.float32)


def _on(row: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
    return None if row is None else row.to(device)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an objective said of the examples of a group.

    Attributes:
        scores: What it was given.
        losses: `[examples]`.
        weights: What their sum is divided by for each, `[examples]`.
        metrics: `[examples]` each.
        batches: The passes that computed them.
    """

    scores: SequenceScores | TokenScores
    losses: torch.Tensor
    weights: NDArray[np.float64]
    metrics: Mapping[str, torch.Tensor]
    batches: list[PackedBatch]

    def add_to(self, total: ScoreSums) -> None:
        """Adds it to the sums over a step or an evaluation."""
        total.add(self.losses.detach(), self.metrics, self.batches, float(self.weights.sum()))

    def loss_of_each(self) -> list[float]:
        """Returns the loss of each example, of which the weighted mean is the whole."""
        found = zip(self.losses.tolist(), self.weights.tolist(), strict=True)
        return [loss / weight if weight else math.nan for loss, weight in found]


class HeadLoss:
    """The mean of the losses that an objective gives examples, or their tokens, by the scores of a head.

    The sum over a step is divided by the number of its examples, or of their tokens in the loss, whichever process and
    pass they are in; where labels weigh otherwise, by the sum of what those weigh. There are a few scores, so that a
    pass is run once, forward and backward.

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
        calls: StepCalls,
    ) -> StepScore:
        """Takes one forward and one backward pass over each group."""
        total, weight = ScoreSums(self._scored.mean_of), self._weight_of(store, groups)
        for asked in self._asked(store, groups, self._passes.own(store, groups), calls.before):
            (asked.losses.sum() / weight).backward()  # type: ignore[no-untyped-call]
            asked.add_to(total)
        return total.over(self._passes.processes).score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Takes one forward pass over each group."""
        total, own = ScoreSums(self._scored.mean_of), self._passes.own(store, groups)
        found, kept = list[float](), list[dict[str, Any]]()
        for asked in self._asked(store, groups, own, lambda done, every, *_: poll(done, every)):
            asked.add_to(total)
            found += asked.loss_of_each()
            if isinstance(self._objective, Overall):
                kept += _by_example(self._objective.kept(asked.scores))
        score = total.over(self._passes.processes).score()
        losses = self._passes.gathered(groups, own, found)
        return replace(score, losses=losses, metrics={**score.metrics, **self._overall(groups, own, kept)})

    def _overall(
        self, groups: Sequence[Sequence[int]], own: Sequence[int], kept: Sequence[dict[str, Any]]
    ) -> dict[str, float]:
        """Returns what the objective tells of all examples together, if it tells anything of that kind.

        Args:
            groups: The examples' numbers, by group.
            own: The numbers of the groups that this process has computed.
            kept: What the objective keeps of each of their examples.
        """
        if not isinstance(self._objective, Overall):
            return {}
        of_all = self._passes.gathered(groups, own, kept)
        if not of_all:
            return {}
        told = self._objective.overall({name: _as_tensor([each[name] for each in of_all]) for name in of_all[0]})
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
            yield _Asked(scores, losses, self._scored.weights(store, groups[number]), metrics, batches)

    def _weight_of(self, store: TokenStore, groups: Sequence[Sequence[int]]) -> float:
        """Returns what the sum over some groups is divided by: the weights of their examples, or of their tokens."""
        return float(self._scored.weights(store, [number for group in groups for number in group]).sum())


def _by_example(kept: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Returns what is kept of each example, by name, as JSON."""
    columns = [values.tolist() for values in kept.values()]
    return [dict(zip(kept, each, strict=True)) for each in zip(*columns, strict=True)]


def _as_tensor(values: list[Any]) -> torch.Tensor:
    """Returns numbers of all examples as one tensor: int64, or float64."""
    found = torch.from_numpy(np.array(values))
    return found.double() if found.is_floating_point() else found.long()
