"""What a run minimizes, and what sampled answers are asked and worth, where it learns from those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import Part
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.preparation.corpus import RECORD, Corpus
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import Question, answered, metrics_of, question_of, scores_of
from graftkit.interfaces.metric import ChecksRecords, Metric
from graftkit.interfaces.objective import SampledConfig
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["check_rewarded", "loss_in"]

_CHECKED = 256
"""How many examples are read again at once."""


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
        partial(_asked, run, samples.train, rewarding),
        partial(_asked, run, samples.holdout, rewarding),
        stop,
        run.vocabulary.encoder.max_length,
        recipe.evaluation.batch_size,
        derived_seed(recipe.training.seed, "holdout answers"),
    )


def check_rewarded(run: RunContext, corpus: Corpus) -> None:
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
    every = len(corpus.train)
    with run.stage("records to answer") as stage:
        report = stage.progress("records")
        for first in range(0, every, _CHECKED):
            report(first, every)
            examples = [corpus.train[number] for number in range(first, min(first + _CHECKED, every))]
            for question in _questions(run, run.plan.samples.train, examples):
                given = answered(run.vocabulary.tokenizer, question, [])
                for metric in checking:
                    metric.check(deepcopy(given))


def _rewarding(run: RunContext, config: SampledConfig) -> dict[str, Metric]:
    """Returns the metrics that are summed up to a reward."""
    metrics = metrics_of(run.plan.bound, run.host)
    return {label: metrics[label] for label in config.rewards} if config.rewards else metrics


def _asked(
    run: RunContext, samples: Samples, metrics: Mapping[str, Metric], examples: Sequence[Example]
) -> list[Asked]:
    """Returns what some examples ask; see `_questions`."""

    def scores(question: Question, reply: Sequence[int]) -> Mapping[str, float]:
        return scores_of(metrics, answered(run.vocabulary.tokenizer, question, reply))

    return [Asked(question.prompt, partial(scores, question)) for question in _questions(run, samples, examples)]


def _questions(run: RunContext, samples: Samples, examples: Sequence[Example]) -> list[Question]:
    """Returns the questions of some examples, whose records are read again.

    Raises:
        DataError: The records are not what they were.
    """
    encoder = run.vocabulary.encoder
    numbers = [int(example.by_example[RECORD]) for example in examples]
    wanted = sorted({*numbers})
    parts: dict[int, list[tuple[Part, Example]]] = {
        number: [(part, found) for part in encoder.turns(shown(sample)) for found in encoder.encode(part).examples]
        for number, sample in zip(wanted, samples.at(wanted), strict=True)
    }

    def question(example: Example, number: int) -> Question:
        for part, found in parts[number]:
            if np.array_equal(found.ids, example.ids):
                return question_of(encoder, part, example)
        raise DataError(f"record {number + 1} becomes other tokens than before", where=str(run.plan.datasets[0].source))

    return [question(example, number) for example, number in zip(examples, numbers, strict=True)]
