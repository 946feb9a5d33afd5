"""What a run minimizes, and what sampled answers are asked and worth, where it learns from those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, dropwhile
from typing import Any

import numpy as np
from torch import nn

from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.planning.sampled import rewarding
from graftkit.flow.preparation.corpus import RECORD, Corpus
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import (
    Question,
    answered,
    checked_first,
    checking,
    metrics_of,
    questions_in,
    scores_of,
)
from graftkit.host.host import PluginHost
from graftkit.interfaces.metric import ChecksRecords, Metric
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.loop import planned_steps
from graftkit.training.order import Mixture
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.start_scores import KeptStart
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["asked_of", "check_rewarded", "loss_in", "mixture_of", "rewards_of", "sampling_in", "sampling_of"]

_KEPT_TOKENS = 10_000_000
"""Records of so many tokens are read together and kept in memory, those of later steps, too: it takes all files."""


def loss_in(
    run: RunContext, network: Any, sampling: SamplingPlan | None, learnt: Iterable[nn.Parameter] = ()
) -> Callable[[Passes], StepLoss] | None:
    """Returns what makes the loss of a run's steps and holdout records; None for the likelihood.

    Args:
        run: The run.
        network: The model.
        sampling: What `sampling_in` gave.
        learnt: What is trained by it, as it is at the start; nothing where it is evaluated alone.
    """
    kept = list(learnt) if sampling and sampling.config.compares_with_start else []
    return loss_of(run.plan.bound, run.host, network, sampling, KeptStart(kept) if kept else None)


def sampling_in(run: RunContext, corpus: Corpus) -> SamplingPlan | None:
    """Returns how a run samples answers and rewards them; None where it learns from something else.

    Evaluations and training share it, with its metrics and the records that it keeps. Metrics are made for the first
    answers, since who only exports may have none.

    Args:
        run: The run.
        corpus: The examples, and the tokens that end an answer.
    """
    bound, samples = run.plan.bound, run.plan.samples
    if not isinstance(bound.objective_config, SampledConfig):
        return None
    train, holdout = _Records(samples.train), _Records(samples.holdout)

    @cache
    def metrics() -> dict[str, Metric]:
        return rewards_of(bound, run.host)

    def ask(store: TokenStore, numbers: Sequence[int]) -> list[Asked]:
        if store is corpus.train:
            return _asked(run, train.at(store, numbers, _steps_from(run, store, numbers)), metrics(), store, numbers)
        return _asked(run, holdout.at(store, numbers), metrics(), store, numbers)

    return sampling_of(bound, ask, corpus.stop, run.vocabulary.encoder.max_length)


def sampling_of(
    bound: BoundRecipe,
    ask: Callable[[TokenStore, Sequence[int]], Sequence[Asked]],
    stop: Sequence[int],
    max_length: int,
) -> SamplingPlan:
    """Returns how answers are sampled and rewarded.

    Args:
        bound: The recipe, whose objective learns from such.
        ask: As for `SamplingPlan`.
        stop: As for `SamplingPlan`.
        max_length: As for `SamplingPlan`.
    """
    config, recipe = bound.objective_config, bound.recipe
    assert isinstance(config, SampledConfig)
    seed = derived_seed(recipe.training.seed, "holdout answers")
    return SamplingPlan(config, ask, stop, max_length, recipe.evaluation.batch_size, seed)


def asked_of(metrics: Mapping[str, Metric], tokenizer: Tokenizer, question: Question) -> Asked:
    """Returns what a question asks, and how an answer to it is scored.

    Args:
        metrics: What answers are rewarded by.
        tokenizer: The model's.
        question: The question.

    Raises:
        DataError: Nothing stands before the answer.
    """
    if not question.prompt:
        raise DataError(
            "no token stands before the answer, and the objective has a prompt answered",
            where=question.record.where,
            hint="Leave such records out of the file, or name a chat template that begins an answer.",
        )

    def scores(reply: Sequence[int]) -> Mapping[str, float]:
        return scores_of(metrics, answered(tokenizer, question, reply))

    return Asked(question.prompt, scores)


def rewards_of(bound: BoundRecipe, host: PluginHost) -> dict[str, Metric]:
    """Returns the metrics that are summed up to a reward."""
    return {label: metric for label, metric in metrics_of(bound, host).items() if label in rewarding(bound)}


class _Records:
    """Records by their numbers, of which those of later steps are read with those of a step.

    Args:
        samples: The records.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples, self._kept = samples, dict[int, Sample]()

    def at(
        self, store: TokenStore, numbers: Sequence[int], later: Iterable[Sequence[int]] = ()
    ) -> Mapping[int, Sample]:
        """Returns those that some examples are of, at least.

        Args:
            store: The examples.
            numbers: Which of them.
            later: Those of the steps that follow, which are read together with them as far as there is room.

        Raises:
            DataError: A file has changed since its records were checked.
        """
        if self._kept.keys() >= {int(store.by_example[RECORD][number]) for number in numbers}:
            return self._kept
        wanted, room = set[int](), _KEPT_TOKENS
        for number, needed in chain(((n, True) for n in numbers), ((n, False) for step in later for n in step)):
            record = int(store.by_example[RECORD][number])
            if record not in wanted:
                room -= int(store.offsets[number + 1] - store.offsets[number])
                if room < 0 and not needed:
                    break
                wanted.add(record)
        ascending = sorted(wanted)
        found = dict(zip(ascending, self._samples.at(ascending), strict=True))
        self._kept = found if len(wanted) > len(numbers) or room >= 0 else {}
        return found


def check_rewarded(run: RunContext, corpus: Corpus) -> None:
    """Makes sure that answers to the records of all steps can be scored, where a run learns from what metrics say.

    Those that are held out, and the first ones, were checked before anything was encoded (`check_answerable`).

    Args:
        run: The run.
        corpus: The examples.

    Raises:
        DataError: A metric says that it can't score those to one.
    """
    config = run.plan.bound.objective_config
    if not isinstance(config, SampledConfig):
        return
    metrics = rewards_of(run.plan.bound, run.host)
    if not any(isinstance(metric, ChecksRecords) for metric in metrics.values()):
        return
    check, seen = checking(metrics, run.vocabulary.tokenizer), _seen(run, corpus.train)
    with run.stage("records to answer") as stage:
        report = stage.progress("records")
        for number, sample in enumerate(seen):
            report(number, len(seen))
            for question in questions_in(run.vocabulary.encoder, sample):
                check(question)


def _seen(run: RunContext, store: TokenStore) -> Samples:
    """Returns the records that some step sees and that have not been checked yet."""
    checked = {*checked_first(run.plan)}
    seen = {int(store.by_example[RECORD][number]) for step in _steps(run, store) for number in step}
    return run.plan.samples.train.at(seen - checked)


def _steps(run: RunContext, store: TokenStore) -> list[list[int]]:
    """Returns the examples of every step of the training."""
    bound = run.plan.bound
    lengths, repeats = store.lengths.tolist(), bound.objective_config.repeats
    return planned_steps(lengths, bound.recipe.training, mixture_of(run, store), repeats)


def _steps_from(run: RunContext, store: TokenStore, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yields the examples of the step that sees just these, and of those that follow it; plans them when asked."""
    yield from dropwhile(lambda step: {*step} != {*numbers}, _steps(run, store))


def mixture_of(run: RunContext, store: TokenStore) -> Mixture | None:
    """Returns which training examples an epoch sees; None for each once."""
    return Mixture(run.plan.shares, store.by_example[RECORD].tolist()) if run.plan.mixed else None


def _asked(
    run: RunContext,
    records: Mapping[int, Sample],
    metrics: Mapping[str, Metric],
    store: TokenStore,
    numbers: Sequence[int],
) -> list[Asked]:
    """Returns what some examples ask, given their records by number.

    Raises:
        DataError: The records are not what they were, or one has no prompt.
    """
    examples = [(store[number], int(store.by_example[RECORD][number])) for number in numbers]
    questions = {
        number: list(questions_in(run.vocabulary.encoder, records[number]))
        for number in sorted({record for _, record in examples})
    }

    def asked(example: Example, number: int) -> Asked:
        same = (each for each in questions[number] if np.array_equal(each.example.ids, example.ids))
        question = next(same, None)
        if question is None:
            raise DataError("the record becomes other tokens than before", where=records[number].where)
        return asked_of(metrics, run.vocabulary.tokenizer, question)

    return [asked(example, record) for example, record in examples]
