"""What a run minimizes, and what sampled answers are asked and worth, where it learns from those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import Part
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.preparation.corpus import RECORD
from graftkit.flow.preparation.objective import loss_of
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import Question, answered, metrics_of, question_of, scores_of
from graftkit.interfaces.metric import Metric
from graftkit.interfaces.objective import SampledConfig
from graftkit.interfaces.samples import Sample
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["loss_in"]

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
    metrics = metrics_of(run.plan.bound, run.host)
    rewarding = {label: metrics[label] for label in config.rewards} if config.rewards else metrics
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


def _asked(
    run: RunContext, known: _Records, metrics: Mapping[str, Metric], store: TokenStore, numbers: Sequence[int]
) -> list[Asked]:
    """Returns what some examples ask.

    Raises:
        DataError: The records are not what they were, or one has no prompt.
    """
    encoder, tokenizer = run.vocabulary.encoder, run.vocabulary.tokenizer
    examples = [(store[number], int(store.by_example[RECORD][number])) for number in numbers]
    records = known.at(sorted({record for _, record in examples}), len(store.ids))
    parts: dict[int, list[tuple[Part, Example]]] = {
        number: [(part, found) for part in encoder.turns(shown(record)) for found in encoder.encode(part).examples]
        for number, record in records.items()
    }

    def asked(example: Example, number: int) -> Asked:
        for part, found in parts[number]:
            if np.array_equal(found.ids, example.ids):
                question = question_of(encoder, part, example)
                if not question.prompt:
                    raise DataError(
                        "no token stands before the answer, and the objective has a prompt answered",
                        where=records[number].where,
                        hint="Leave such records out of the file, or name a chat template that begins an answer.",
                    )
                return Asked(question.prompt, partial(_scores, question))
        raise DataError("the record becomes other tokens than before", where=records[number].where)

    def _scores(question: Question, reply: Sequence[int]) -> Mapping[str, float]:
        return scores_of(metrics, answered(tokenizer, question, reply))

    return [asked(example, record) for example, record in examples]
