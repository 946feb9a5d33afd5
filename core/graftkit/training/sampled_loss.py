"""What a step minimizes that learns from answers which the model itself gives, by what each is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import fsum
from typing import Any

import numpy as np
import torch
from torch import nn

from graftkit.errors import LogitsError
from graftkit.interfaces.objective import SampledObjective
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.interfaces.scores import ADVANTAGE, MEAN_TOKENS
from graftkit.model.generate import SampledAnswer, sample_answers
from graftkit.model.memory_back import give_freed_back
from graftkit.model.sampling import Sampling
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.loss import TokenLoss
from graftkit.training.objective_loss import ObjectiveLoss
from graftkit.training.processes import shares
from graftkit.training.sampled_batch import SampledBatch
from graftkit.training.start_scores import KeptStart, rounding, score_groups
from graftkit.training.step_loss import OLD, REFERENCE, OnPass, Passes, StepCalls, StepScore

__all__ = ["Asked", "SampledLoss", "SamplingPlan"]

EVALUATED = 1
"""How many answers to each prompt an evaluation samples: their mean reward has the expectation that of more has."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is asked to answer.

    Attributes:
        prompt: Token ids.
        scores: Returns what an answer is worth, given its tokens without the one that ended it, by each metric.
    """

    prompt: Sequence[int]
    scores: Callable[[Sequence[int]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How answers are sampled and rewarded.

    Attributes:
        config: The objective's fields.
        ask: Returns what each of some examples asks, given their store and their numbers.
        stop: Tokens that end an answer.
        max_length: The most tokens of a prompt and its answer together.
        side_by_side: How many answers are made side by side at most.
        seed: What an evaluation's answers are drawn by: the same each time.
    """

    config: SampledConfig
    ask: Callable[[TokenStore, Sequence[int]], Sequence[Asked]]
    stop: Sequence[int]
    max_length: int
    side_by_side: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The answers to one prompt; fewer, or none, where the model's logits are no numbers.

    Attributes:
        prompt: Token ids.
        answers: What was sampled.
        scores: What each answer is worth by each metric.
        rewards: What each is worth altogether.
    """

    prompt: Sequence[int]
    answers: Sequence[SampledAnswer]
    scores: Sequence[Mapping[str, float]]
    rewards: Sequence[float]


class SampledLoss:
    """Minus the mean reward of sampled answers, and the gradient that an objective gives of it.

    Answers are drawn from the model as it is before the step, in evaluation mode; the gradient is computed in training
    mode, from the log-probabilities of their tokens. Answers whose advantage is 0 have no gradient, unless they are
    compared with the start: their passes are left out. So are those of answers that were cut off, where the config says
    so.

    Several processes share the prompts out among them, and then the passes; which answers are drawn, and what is
    computed in a pass, does not depend on how many there are.

    Args:
        network: The model.
        objective: The objective.
        passes: How answers are cut into passes.
        sampling: How they are sampled.
        start: What is trained as it was at the start, where the objective compares with that and is learnt from.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: SampledObjective,
        passes: Passes,
        sampling: SamplingPlan,
        start: KeptStart | None = None,
    ) -> None:
        self._network, self._objective, self._passes, self._sampling = network, objective, passes, sampling
        self._start, temperature = start, sampling.config.temperature
        self._batch: SampledBatch | None = None
        self._loss = ObjectiveLoss(network, objective, passes, sampled_at=temperature)
        self._scoring = TokenLoss(network, packed=passes.packed, temperature=temperature)

    def backward(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        calls: StepCalls,
    ) -> StepScore:
        """Samples answers to the step's prompts, and adds the gradient of those that are learnt from.

        Where several steps learn from the same answers, those after the first one add the gradient alone.
        """
        batch, before = self._batch, 0
        if batch is None:

            def report(made: int, most: int) -> None:
                nonlocal before
                calls.poll()
                calls.on_pass(made, most)
                before = most

            calls.seed_pass(0, 0)
            seed = int(torch.randint(2**62, ()))
            asked = self._sampling.ask(store, list(chain.from_iterable(groups)))
            size = self._sampling.config.group_size
            found = self._sampled(asked, size, seed, report)
            score = _score(found, size)
            if not math.isfinite(score.loss):
                return score
            batch = SampledBatch(self._learnt(found), sum(len(group.answers) for group in found), score)
            batch, scored = self._compared(batch, calls.counted_from(before))
            before += scored
            if self._sampling.config.num_iterations > 1:
                self._batch = batch
        told = self._learn(batch, calls.counted_from(before))
        return replace(batch.score, metrics={**told, **batch.score.metrics})

    def begin(self) -> None:
        """Has the next step sample answers."""
        self._batch = None

    def state(self) -> dict[str, torch.Tensor]:
        """Returns the answers that the next step learns from, too."""
        assert self._batch is not None, "a step has been taken, and others learn from the same answers"
        return self._batch.state()

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Has the next step learn from such answers.

        Raises:
            TrainingError: They are none.
        """
        network: Any = self._network
        self._batch = SampledBatch.from_state(state, network.get_input_embeddings().num_embeddings)

    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Samples an answer to each prompt; the same numbers draw them each time."""
        asked = self._sampling.ask(store, list(chain.from_iterable(groups)))
        return _score(self._sampled(asked, EVALUATED, self._sampling.seed, poll), EVALUATED)

    def _sampled(self, asked: Sequence[Asked], size: int, seed: int, report: OnPass) -> list[_Group]:
        """Samples and scores so many answers to each prompt, this process those to its own ones.

        Args:
            asked: The prompts.
            size: How many answers to each.
            seed: What they are drawn by.
            report: Called with how many tokens the longest answers have by now, and how many they may have: after
                each token, and before each answer is scored.
        """
        together, most = self._sampling.side_by_side, self._sampling.config.max_new_tokens
        processes = self._passes.processes
        own = shares([len(each.prompt) + most for each in asked], processes.count)[processes.rank]
        batches = [
            ([own[place] for place in places], numbers)
            for places in _parts(len(own), max(1, together // size))
            for numbers in _parts(size, min(size, together))
        ]
        answers: dict[int, list[SampledAnswer]] = {place: [] for place in own}
        training = self._network.training
        self._network.eval()
        try:
            for done, (places, numbers) in enumerate(batches):

                def poll(made: int, done: int = done) -> None:
                    report(done * most + made, len(batches) * most)

                seeds = [[derived_seed(seed, "answer", f"{place}:{number}") for number in numbers] for place in places]
                for place, given in zip(places, self._answered(asked, places, seeds, poll), strict=True):
                    answers[place] += given
        finally:
            self._network.train(training)
        made = len(batches) * most
        scored = [self._scored(asked[place], answers[place], partial(report, made, made)) for place in own]
        told = [([([*each.ids], each.ended) for each in answers[place]], scored[n]) for n, place in enumerate(own)]
        every = self._passes.gathered([[place] for place in range(len(asked))], own, told)
        return [self._group(each.prompt, *found) for each, found in zip(asked, every, strict=True)]

    def _answered(
        self,
        asked: Sequence[Asked],
        places: Sequence[int],
        seeds: Sequence[Sequence[int]],
        poll: Callable[[int], None],
    ) -> list[list[SampledAnswer]]:
        """Samples answers to some of the prompts; none where the model's logits are no numbers."""
        prompts, most = [asked[place].prompt for place in places], self._sampling.config.max_new_tokens
        limits = [min(most, max(1, self._sampling.max_length - len(prompt))) for prompt in prompts]
        config, stop = self._sampling.config, self._sampling.stop
        top_p = 1.0 if config.top_p is None else config.top_p
        sampling = Sampling(
            config.temperature,
            top_k=config.top_k,
            top_p=top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
        )
        try:
            return sample_answers(self._network, prompts, seeds, limits=limits, stop=stop, sampling=sampling, poll=poll)
        except LogitsError:
            return [[] for _ in places]

    def _scored(
        self, asked: Asked, answers: Sequence[SampledAnswer], poll: Callable[[], None]
    ) -> list[Mapping[str, float]]:
        """Scores the answers to a prompt; a metric may take long, so `poll` is called before each."""
        scores = []
        for answer in answers:
            poll()
            scores.append(asked.scores(answer.ids[: len(answer.ids) - answer.ended]))
        return scores

    def _group(
        self,
        prompt: Sequence[int],
        answers: Sequence[tuple[Sequence[int], bool]],
        scores: Sequence[Mapping[str, float]],
    ) -> _Group:
        weights = self._sampling.config.rewards
        rewards = [
            fsum(weights.get(label, 0.0) * score for label, score in each.items()) if weights else fsum(each.values())
            for each in scores
        ]
        return _Group(prompt, [SampledAnswer(ids, ended) for ids, ended in answers], scores, rewards)

    def _learnt(self, groups: Sequence[_Group]) -> TokenStore:
        """Returns the answers that are learnt from."""
        rewards = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
        advantages = self._objective.advantages(rewards).flatten().tolist()
        every = [(group.prompt, answer) for group in groups for answer in group.answers]
        masks = self._sampling.config.mask_truncated_completions
        tokens = sum(len(answer.ids) for _, answer in every if answer.ended or not masks) / len(every)
        return TokenStore.of(
            _example(prompt, answer, {ADVANTAGE: advantage, MEAN_TOKENS: tokens})
            for (prompt, answer), advantage in zip(every, advantages, strict=True)
            if (advantage or self._start) and (answer.ended or not masks)
        )

    def _compared(self, batch: SampledBatch, calls: StepCalls) -> tuple[SampledBatch, int]:
        """Adds what the model at the start says of the answers' tokens, and the one that has sampled them.

        Each where the loss compares with it. Where several steps learn from them, every process has all of that; else
        each has that of those which it learns.

        Returns:
            The answers, and how many groups this process has scored.
        """
        repeated, ways = self._sampling.config.num_iterations > 1, dict[str, AbstractContextManager[None]]()
        if self._start:
            ways[REFERENCE] = self._start.put_back()
        if repeated:
            ways[OLD] = nullcontext()
        store = batch.store
        passes, done = self._passes.all_groups(store), 0
        every = (len(ways) + 1) * len(self._passes.own(store, passes))

        def before(group: Sequence[int]) -> None:
            nonlocal done
            calls.poll()
            calls.on_pass(done, every)
            give_freed_back()
            done += 1

        columns, training = dict[str, np.ndarray](), self._network.training
        self._network.eval()
        try:
            for name, way in ways.items() if len(store) else ():
                found = np.zeros(len(store.ids), np.float32)
                with way, rounding(self._network):
                    score_groups(self._scoring, self._passes, store, passes, found, before)
                columns[name] = self._passes.summed(found) if repeated else found
        finally:
            self._network.train(training)
        return replace(batch, store=replace(store, by_token={**store.by_token, **columns})), done

    def _learn(self, batch: SampledBatch, calls: StepCalls) -> Mapping[str, float]:
        """Adds the gradient of all answers that are learnt from; returns what else the objective tells of these.

        The answers that are left out count in the mean, too.
        """
        if not len(batch.store):
            return {}

        def seed_pass(group: int, place: int) -> None:
            give_freed_back()  # no pass has the size of another: of what one frees the next finds no use
            calls.seed_pass(group + 1, place)

        passes, calls_of_passes = self._passes.all_groups(batch.store), replace(calls, seed_pass=seed_pass)
        return self._loss.backward(batch.store, passes, calls_of_passes, count=batch.count).metrics


def _parts(count: int, most: int) -> list[range]:
    """Returns the numbers below `count`, so many at a time."""
    return [range(first, min(first + most, count)) for first in range(0, count, most)]


def _example(prompt: Sequence[int], answer: SampledAnswer, by_example: Mapping[str, float]) -> Example:
    ids = np.array([*prompt, *answer.ids], np.int64)
    weights = np.zeros(len(ids), np.float32)
    weights[len(prompt) :] = 1
    return Example(ids, weights, len(prompt), {}, {name: np.float32(value) for name, value in by_example.items()})


def _score(groups: Sequence[_Group], size: int) -> StepScore:
    """Returns what so many sampled answers to each prompt come to; where some are missing, the loss is no number."""
    if not all(len(group.answers) == size for group in groups):
        return StepScore(math.nan, 0, 0, losses=[0.0 - _mean(group.rewards or [math.nan]) for group in groups])
    answers = [answer for group in groups for answer in group.answers]
    rewards = [reward for group in groups for reward in group.rewards]
    scores = [scores for group in groups for scores in group.scores]
    tokens = sum(len(answer.ids) for answer in answers)
    metrics: dict[str, float] = {"reward": _mean(rewards)}
    if len(scores[0]) > 1:
        metrics |= {label: _mean([each[label] for each in scores]) for label in scores[0]}
    if all(len(group.answers) > 1 for group in groups):
        metrics["reward_std"] = _mean([float(np.std(group.rewards, ddof=1)) for group in groups])
        metrics["same_reward"] = _mean([len({*group.rewards}) == 1 for group in groups])
    metrics |= {
        "answer_tokens": tokens / len(answers),
        "cut_off": _mean([not answer.ended for answer in answers]),
    }
    return StepScore(
        0.0 - metrics["reward"],
        tokens + sum(len(group.prompt) * len(group.answers) for group in groups),
        tokens,
        metrics,
        [0.0 - _mean(group.rewards) for group in groups],
    )


def _mean(values: Sequence[Any]) -> float:
    return fsum(values) / len(values)
