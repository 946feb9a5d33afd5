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
from graftkit.store.fingerprint import derived_seed
from graftkit.store.token_store import Example
from graftkit.training.sampled_loss import Asked, SamplingPlan
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["loss_in"]


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
        partial(_asked, run, samples.train, rewarding),
        partial(_asked, run, samples.holdout, rewarding),
        stop,
        run.vocabulary.encoder.max_length,
        recipe.evaluation.batch_size,
        derived_seed(recipe.training.seed, "holdout answers"),
    )


def _asked(
    run: RunContext, samples: Samples, metrics: Mapping[str, Metric], examples: Sequence[Example]
) -> list[Asked]:
    """Returns what some examples ask, whose records are read again.

    Raises:
        DataError: The records are not what they were, or one has no prompt.
    """
    encoder, tokenizer = run.vocabulary.encoder, run.vocabulary.tokenizer
    numbers = [int(example.by_example[RECORD]) for example in examples]
    wanted = sorted({*numbers})
    records = dict(zip(wanted, samples.at(wanted), strict=True))
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

    return [asked(example, number) for example, number in zip(examples, numbers, strict=True)]
