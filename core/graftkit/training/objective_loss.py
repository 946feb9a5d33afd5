"""The loss of what an objective says of the log-probabilities of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from graftkit.interfaces.objective import Objective
from graftkit.interfaces.objective_config import Minimizes
from graftkit.interfaces.scores import Scores
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.loss import Candidates, ScoredPass, TokenLoss
from graftkit.training.step_loss import (
    OLD,
    REFERENCE,
    TEACHER_IDS,
    TEACHER_LOGPS,
    MeanOf,
    OnePass,
    OnPass,
    Passes,
    ScoreSums,
    StepCalls,
    StepScore,
    by_example,
)

__all__ = ["ObjectiveLoss"]


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
            losses += _loss_of_each(asked.losses.tolist(), store, numbers, self._mean_of)
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


def _loss_of_each(losses: Sequence[float], store: TokenStore, numbers: Sequence[int], mean_of: MeanOf) -> list[float]:
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
