"""What a run minimizes, and what sampled answers are asked and worth, where it learns from those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import Encoder
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.preparation.corpus import RECORD
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import Question, answered, metrics_of, question_of, scores_of
from graftkit.interfaces.metric import ChecksRecords, Metric
from graftkit.interfaces.objective import SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["check_rewarded", "loss_in"]

_KEPT_TOKENS = 10_000_000
"""Records of so many tokens together are kept in memory: reading the few of a step anew goes through all files."""


def loss_in(run: RunContext, network: Any, stop: Sequence[int]) -> Callable[[Passes], StepLoss] | None:
    """Returns what makes the loss of a run's steps and holdout records; None for the likelihood.

    Args:
        run: The run.
        network: The model.
        stop: The tokens that end an answer.
    """
    bound = run.plan.bound
    if not isinstance(bound.objective_config, SampledConfig):
        return loss_of(bound, run.host, network)
    return loss_of(bound, run.host, network, _sampling(run, bound.objective_config, stop))


def _sampling(run: RunContext, config: SampledConfig, stop: Sequence[int]) -> SamplingPlan:
    recipe, samples = run.plan.bound.recipe, run.plan.samples
    rewarding = _rewarding(run, config)
    return SamplingPlan(
        config,
        partial(_asked, run, _Records(samples.train), rewarding),
        partial(_asked, run, _Records(samples.holdout), rewarding),
        stop,
        run.vocabulary.encoder.max_length,
        recipe.evaluation.batch_size,
        derived_seed(recipe.training.seed, "holdout answers"),
    )


class _Records:
    """Records by their numbers; where there are few, they are kept once they are read.

    Args:
        samples: The records.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples, self._kept = samples, list[Sample]()

    def at(self, numbers: Sequence[int], tokens: int) -> dict[int, Sample]:
        """Returns those with some numbers, ascending.

        Args:
            numbers: The numbers.
            tokens: How many tokens all records have.

        Raises:
            DataError: A file has changed since its records were checked.
        """
        if tokens > _KEPT_TOKENS:
            return dict(zip(numbers, self._samples.at(numbers), strict=True))
        self._kept = self._kept or list(self._samples)
        return {number: self._kept[number] for number in numbers}


def check_rewarded(run: RunContext) -> None:
    """Makes sure that answers to all training records can be scored, where a run learns from what metrics say of them.

    Raises:
        DataError: A metric says that it can't score those to one.
    """
    config = run.plan.bound.objective_config
    if not isinstance(config, SampledConfig):
        return
    checking = [metric for metric in _rewarding(run, config).values() if isinstance(metric, ChecksRecords)]
    if not checking:
        return
    samples = run.plan.samples.train
    with run.stage("records to answer") as stage:
        report = stage.progress("records")
        for number, sample in enumerate(samples):
            report(number, len(samples))
            for question in _questions(run.vocabulary.encoder, sample):
                given = answered(run.vocabulary.tokenizer, question, [])
                for metric in checking:
                    metric.check(deepcopy(given))


def _rewarding(run: RunContext, config: SampledConfig) -> dict[str, Metric]:
    """Returns the metrics that are summed up to a reward."""
    metrics = metrics_of(run.plan.bound, run.host)
    return {label: metrics[label] for label in config.rewards} if config.rewards else metrics


def _asked(
    run: RunContext, known: _Records, metrics: Mapping[str, Metric], store: TokenStore, numbers: Sequence[int]
) -> list[Asked]:
    """Returns what some examples ask.

    Raises:
        DataError: The records are not what they were, or one has no prompt.
    """
    examples = [(store[number], int(store.by_example[RECORD][number])) for number in numbers]
    records = known.at(sorted({record for _, record in examples}), len(store.ids))
    questions = {number: list(_questions(run.vocabulary.encoder, record)) for number, record in records.items()}

    def asked(example: Example, number: int) -> Asked:
        same = (each for each in questions[number] if np.array_equal(each.example.ids, example.ids))
        question = next(same, None)
        if question is None:
            raise DataError("the record becomes other tokens than before", where=records[number].where)
        if not question.prompt:
            raise DataError(
                "no token stands before the answer, and the objective has a prompt answered",
                where=records[number].where,
                hint="Leave such records out of the file, or name a chat template that begins an answer.",
            )
        return Asked(question.prompt, partial(scores, question))

    def scores(question: Question, reply: Sequence[int]) -> Mapping[str, float]:
        return scores_of(metrics, answered(run.vocabulary.tokenizer, question, reply))

    return [asked(example, record) for example, record in examples]


def _questions(encoder: Encoder, record: Sample) -> Iterator[Question]:
    """Yields what a record asks: a question for each of its examples."""
    for part in encoder.turns(shown(record)):
        for example in encoder.encode(part).examples:
            yield question_of(encoder, part, example)
