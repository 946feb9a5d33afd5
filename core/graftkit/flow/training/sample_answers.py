"""Shows now and then, while a model is trained, what it answers to a holdout record by now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

from graftkit.errors import DataError
from graftkit.flow.events import SampleAnswered
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext
from graftkit.flow.training.answers import Question, answered, questions_of
from graftkit.host.lifecycle import StepInfo
from graftkit.model.generate import generate_greedily

__all__ = ["SampleAnswers"]

SHARE = 0.01
"""The share of the time of training that answers may take."""

MOST = 8
"""How many answers a run shows at most."""

MOST_TOKENS = 48
"""Tokens of a shown answer at most."""

_FIRST = 0.2
"""Seconds that the first answer is taken to need: how long it really takes is known afterwards."""


class _TooLong(Exception):
    """An answer has taken all the time that there is for it."""


class SampleAnswers:
    """Answers a holdout record now and then, as long as that takes little of the training's time.

    Nothing depends on it: no random number is drawn, nothing is written, and the model is left as it was. Where several
    processes train, or the recipe asks for no answers, there is none.

    Args:
        run: The run.
        loaded: The model.
        corpus: The examples.
    """

    def __init__(self, run: RunContext, loaded: LoadedModel, corpus: Corpus) -> None:
        options = run.plan.bound.recipe.evaluation
        self._run, self._network, self._corpus = run, loaded.model.network, corpus
        self._numbers = corpus.answers[: min(MOST, options.answers)] if run.processes.count == 1 else []
        self._tokens = min(MOST_TOKENS, options.max_new_tokens)
        self._trained, self._spent, self._needs, self._shown = 0.0, 0.0, _FIRST, 0

    def after_step(self, step: StepInfo) -> None:
        """Answers the next record where it is time to and there is time for it."""
        self._trained += step.seconds
        left = SHARE * self._trained - self._spent
        due = self._shown < len(self._numbers) and step.step * MOST >= step.steps * (self._shown + 1)
        if not due or left < self._needs:
            return
        start = time.perf_counter()
        try:
            self._answer(step, start + left)
            self._shown += 1
        except DataError:  # the records have changed meanwhile
            self._numbers = []
        except _TooLong:
            pass
        seconds = time.perf_counter() - start
        self._spent, self._needs = self._spent + seconds, max(self._needs, seconds)

    @cached_property
    def _asked(self) -> Sequence[Question]:
        return questions_of(self._run, self._corpus, self._numbers)

    def _answer(self, step: StepInfo, until: float) -> None:
        question = self._asked[self._shown]
        training, start = self._network.training, time.perf_counter()

        def poll(made: int) -> None:
            self._run.poll()
            now = time.perf_counter()
            if now > until:
                self._needs = (now - start) * self._tokens / made
                raise _TooLong

        self._network.eval()
        try:
            [reply] = generate_greedily(
                self._network, [question.prompt], max_new_tokens=self._tokens, stop=self._corpus.stop, poll=poll
            )
        finally:
            self._network.train(training)
        found = answered(self._run.vocabulary.tokenizer, question, reply)
        self._run.emit(
            SampleAnswered(step.step, step.steps, question.text, found.expected, found.answer, found.record.where)
        )
