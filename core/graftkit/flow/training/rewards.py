"""What a run minimizes, and what sampled answers are asked and worth, where it learns from those."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import Encoder
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.planning.sampled import rewarding
from graftkit.flow.preparation.corpus import RECORD, Corpus
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import Question, answered, metrics_of, question_of, scores_of
from graftkit.interfaces.metric import ChecksRecords, Metric
from graftkit.interfaces.objective import SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.start_scores import KeptStart
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["check_rewarded", "loss_in"]

_KEPT_TOKENS = 10_000_000
"""Records of so many tokens together are kept in memory: reading the few of a step anew goes through all files."""


def loss_in(
    run: RunContext, network: Any, corpus: Corpus, learnt: Iterable[nn.Parameter] = ()
) -> Callable[[Passes], StepLoss] | None:
    """Returns what makes the loss of a run's steps and holdout records; None for the likelihood.

    Args:
        run: The run.
        network: The model.
        corpus: The examples, and the tokens that end an answer.
        learnt: What is trained by it, as it is at the start; nothing where it is evaluated alone.
    """
    bound, config = run.plan.bound, run.plan.bound.objective_config
    if not isinstance(config, SampledConfig):
        return loss_of(bound, run.host, network)
    kept = list(learnt) if config.compares_with_start else []
    return loss_of(bound, run.host, network, _sampling(run, config, corpus), KeptStart(kept) if kept else None)


def _sampling(run: RunContext, config: SampledConfig, corpus: Corpus) -> SamplingPlan:
    recipe, samples = run.plan.bound.recipe, run.plan.samples
    metrics, train, holdout = _rewarding(run), _Records(samples.train), _Records(samples.holdout)

    def ask(store: TokenStore, numbers: Sequence[int]) -> list[Asked]:
        return _asked(run, train if store is corpus.train else holdout, metrics, store, numbers)

    return SamplingPlan(
        config,
        ask,
        corpus.stop,
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
    checking = [metric for metric in _rewarding(run).values() if isinstance(metric, ChecksRecords)]
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


def _rewarding(run: RunContext) -> dict[str, Metric]:
    """Returns the metrics that are summed up to a reward."""
    bound = run.plan.bound
    return {label: metric for label, metric in metrics_of(bound, run.host).items() if label in rewarding(bound)}


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
