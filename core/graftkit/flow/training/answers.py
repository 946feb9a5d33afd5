"""Answers holdout records, and says what each answer is worth by the recipe's metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice
from typing import Any

import numpy as np

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import Encoder, has_answer
from graftkit.corpus.prompt_in_use import prompt_in_use, up_to_last_answer
from graftkit.corpus.sample_files import Samples
from graftkit.errors import DataError
from graftkit.flow.folders.own_files import answers_file
from graftkit.flow.planning.run_plan import RunPlan
from graftkit.flow.planning.sampled import rewarding
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext
from graftkit.host.host import PluginHost
from graftkit.interfaces.metric import Answered, ChecksRecords, Metric
from graftkit.interfaces.samples import Completion, Conversation, LongText, Prompt, Sample, Text
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.generate import generate_greedily
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import FileFacts
from graftkit.store.files import to_json, write_text
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.loop import planned_steps

__all__ = [
    "Answer",
    "Question",
    "answer_all",
    "answered",
    "asked",
    "check_answerable",
    "checked_first",
    "checking",
    "keep_answers",
    "mean_scores",
    "metrics_of",
    "questions_in",
    "questions_of",
    "scores_of",
]

_CHECKED_FIRST = 1000
"""So many training records are checked for rewards before any is encoded: that takes a second or two."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked to answer.

    Attributes:
        prompt: The ids that it goes on with.
        text: The last thing said before the answer, without a chat template; "" for none.
        example: The record's example, whose last stretch in the loss is the answer.
        record: The record.
        expected: The ids of the answer; of one whose end is cut off the example, all of them.
    """

    prompt: Sequence[int]
    text: str
    example: Example
    record: Sample
    expected: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a holdout record, and what that is worth.

    Attributes:
        question: What the record asks, without a chat template.
        answered: The record, and what was said.
        scores: What it is worth by each metric.
    """

    question: str
    answered: Answered
    scores: Mapping[str, float]

    @property
    def right(self) -> bool:
        """Whether the first metric takes it for a right one."""
        return next(iter(self.scores.values())) >= 1

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON, as a run's files of answers have it."""
        return {
            "where": self.answered.record.where,
            "question": self.question,
            "prompt": self.answered.prompt,
            "expected": self.answered.expected,
            "answer": self.answered.answer,
            "right": self.right,
            "scores": dict(self.scores),
        }


def answer_all(
    network: Any,
    questions: Sequence[Question],
    *,
    bound: BoundRecipe,
    metrics: Mapping[str, Metric],
    tokenizer: Tokenizer,
    stop: Sequence[int],
    report: Callable[[int, int], None],
) -> list[Answer]:
    """Answers questions by the likeliest tokens, many side by side, and scores the answers.

    Args:
        network: The model.
        questions: What it is asked.
        bound: The recipe, whose section `evaluation` says how long answers are and how many are made together.
        metrics: What answers are scored by; see `metrics_of`.
        tokenizer: The model's.
        stop: The tokens that end an answer.
        report: Called with how many tokens are made and how many there may be; raises to stop.

    Raises:
        DataError: A metric can't score a record.
        PluginCallError: A metric gave a score that is no number.
    """
    options = bound.recipe.evaluation
    answers: list[Answer] = []
    batches = [questions[at : at + options.batch_size] for at in range(0, len(questions), options.batch_size)]
    for number, batch in enumerate(batches):

        def poll(made: int, number: int = number) -> None:
            report(number * options.max_new_tokens + made, len(batches) * options.max_new_tokens)

        prompts = [question.prompt for question in batch]
        replies = generate_greedily(network, prompts, max_new_tokens=options.max_new_tokens, stop=stop, poll=poll)
        for question, reply in zip(batch, replies, strict=True):
            poll(options.max_new_tokens)  # a metric may take long
            given = answered(tokenizer, question, reply)
            answers.append(Answer(question.text, given, scores_of(metrics, given)))
    return answers


def metrics_of(bound: BoundRecipe, host: PluginHost) -> dict[str, Metric]:
    """Returns what a recipe compares answers by, each under the name that it is reported as."""
    return {label: host.registry.create(choice.registered, choice.config) for label, choice in bound.metrics.items()}


def checking(metrics: Mapping[str, Metric], tokenizer: Tokenizer) -> Callable[[Question], None]:
    """Returns what makes sure that metrics can score answers to a question; nothing is asked of those that always can.

    Args:
        metrics: The metrics.
        tokenizer: The model's.
    """
    found = [metric for metric in metrics.values() if isinstance(metric, ChecksRecords)]

    def check(question: Question) -> None:
        if found:
            given = answered(tokenizer, question, [])
            for metric in found:
                metric.check(deepcopy(given))

    return check


def check_answerable(plan: RunPlan, host: PluginHost, encoder: Encoder) -> None:
    """Makes sure that answers to a run's records can be scored, before any work is done.

    Holdout records are as many as `evaluation.answers` says, and all of them where rewards of the model's own answers
    are learnt from; training records those of `checked_first`. A record that can't be encoded ends this: the run tells
    of it when it encodes them.

    Args:
        plan: The plan of the run.
        host: The plugins.
        encoder: What encodes the records.

    Raises:
        DataError: A metric says that it can't score answers to one.
    """
    bound, holdout = plan.bound, plan.samples.holdout
    count, rewarded = bound.recipe.evaluation.answers, rewarding(bound)
    if not count and not rewarded:
        return
    metrics = metrics_of(bound, host)
    rewards = {label: metrics[label] for label in rewarded}
    check, check_rewards = checking(metrics, encoder.tokenizer), checking(rewards, encoder.tokenizer)
    every = any(isinstance(metric, ChecksRecords) for metric in rewards.values())
    for question in _to_answer(encoder, holdout):
        if count and has_answer(question.example, question.record):
            check(question)
            count -= 1
        elif every:
            check_rewards(question)
        elif not count:
            break
    if every:
        first = plan.samples.train.at(checked_first(plan))
        for question in _to_answer(encoder, first):
            check_rewards(question)


def checked_first(plan: RunPlan) -> Sequence[int]:
    """Returns which training records are checked before any is encoded: a thousand that some step is certain to see.

    Where their lengths are all known, these are the records of the steps; else those of the data sets that the whole
    epochs see altogether.

    Args:
        plan: The plan of a run that learns from rewards of sampled answers.
    """
    training, corpus, records = plan.bound.recipe.training, plan.corpus, len(plan.samples.train)
    known = corpus is not None and not corpus.sampled and not plan.mixed and plan.vocabulary is None
    if corpus is not None and known and len(corpus.lengths) == records:
        steps = planned_steps(corpus.lengths, training, None, plan.bound.objective_config.repeats)
        return sorted(set(chain.from_iterable(steps)))[:_CHECKED_FIRST]
    if training.steps is not None or training.epochs is None:
        return []
    ends = accumulate(share.records for share in plan.shares)
    seen = (
        range(end - share.records, end)
        for share, end in zip(plan.shares, ends, strict=True)
        if share.seen(math.floor(training.epochs)) >= share.records
    )
    return list(islice(chain.from_iterable(seen), _CHECKED_FIRST))


def _to_answer(encoder: Encoder, samples: Samples) -> Iterator[Question]:
    """Yields what records ask, up to one that can't be encoded."""
    for sample in samples:
        if isinstance(sample, Text | LongText):
            continue
        try:
            questions = list(questions_in(encoder, sample))
        except DataError:
            return
        yield from questions


def mean_scores(answers: Sequence[Answer]) -> dict[str, float]:
    """Returns the mean score by each metric."""
    return {label: math.fsum(answer.scores[label] for answer in answers) / len(answers) for label in answers[0].scores}


def keep_answers(run: RunContext, when: str, answers: Sequence[Answer]) -> None:
    """Writes the answers for whoever wants to read them.

    Args:
        run: The run.
        when: "before" or "after" training.
        answers: The answers.
    """
    data = [answer.to_json() for answer in answers]
    fingerprint = run.vocabulary.tokenizer.fingerprint
    text = to_json({"tokenizer_fingerprint": fingerprint, "answers": data})
    write_text(run.folder / answers_file(when), text)
    run.manifest_file.keep(answers_file(when), FileFacts.of(text))


def scores_of(metrics: Mapping[str, Metric], answered: Answered) -> dict[str, float]:
    """Returns what an answer is worth by each metric.

    Raises:
        DataError: A metric can't score its record.
        PluginCallError: A metric gave a score that is no number.
    """
    return {label: float(metric.score(deepcopy(answered))) for label, metric in metrics.items()}


def _asked_in(record: Sample) -> str:
    """Returns the last thing said before a record's last answer; "" for none."""
    if isinstance(record, Completion):
        return record.prompt
    if not isinstance(record, Conversation):
        return ""
    if isinstance(record, Prompt):
        return record.messages[-1].content
    said = list(record.messages)
    while said and said[-1].role != "assistant":
        said.pop()
    return next((message.content for message in reversed(said[:-1]) if message.role != "assistant"), "")


def asked(
    encoder: Encoder, samples: Samples, store: TokenStore, numbers: Sequence[int], records: Sequence[int]
) -> list[Question]:
    """Returns what is asked for the answer of some examples, of a conversation the last that is learnt.

    The prompt is that of use, training's own where that can't be told.

    Args:
        encoder: What made the examples.
        samples: The records.
        store: Their examples.
        numbers: Which examples are to be answered.
        records: The number of the record that each of them is of.
    """
    every = (
        question
        for sample in samples.at({*records})
        for question in questions_in(encoder, sample)
        if has_answer(question.example, question.record)
    )
    examples = (store[number] for number in numbers)
    return [replace(question, example=example) for example, question in zip(examples, every, strict=False)]


def questions_in(encoder: Encoder, record: Sample) -> Iterator[Question]:
    """Yields what a record asks: a question for each of its examples.

    Args:
        encoder: What makes the examples.
        record: The record.

    Raises:
        DataError: It can't be encoded.
    """
    for part in encoder.turns(shown(record)):
        encoded = encoder.encode(part)
        cut = encoded.truncated
        for example in encoded.examples:
            prompt = prompt_in_use(encoder, part, cut=cut) or example.ids[: example.prompt_length].tolist()
            text = _asked_in(up_to_last_answer(encoder, part, cut=cut) or part)
            yield Question(prompt, text, example, part, _expected(encoder, part, example, prompt))


def _expected(encoder: Encoder, part: Sample, example: Example, prompt: Sequence[int]) -> list[int]:
    """Returns the ids of the answer that an example has after a prompt, those that are cut off it, too."""
    if encoder.rules.asks and not example.loss_mask.any():  # the prompt alone is kept of one that is too long
        [example] = encoder.uncut.encode(part).examples
    goes_on = example.ids[: len(prompt)].tolist() == list(prompt)
    start = len(prompt) if goes_on else example.prompt_length
    first = whole = example.sequences[0]
    if encoder.rules.overflow == "truncate" and len(first.ids) == encoder.max_length:
        [whole] = encoder.uncut.encode(part).examples
    after = np.flatnonzero(~whole.loss_mask[len(first.ids) :])
    end = len(first.ids) + int(after[0]) if len(after) else len(whole.ids)
    ids: list[int] = whole.ids[start:end][whole.loss_mask[start:end]].tolist()
    return ids


def questions_of(run: RunContext, corpus: Corpus, numbers: Sequence[int]) -> list[Question]:
    """Returns what a run asks its model: some of its holdout examples.

    Args:
        run: The run.
        corpus: The examples.
        numbers: Which of the holdout examples.
    """
    records = corpus.answered[: len(numbers)]
    return asked(run.vocabulary.encoder, run.plan.samples.holdout, corpus.holdout, numbers, records)


def answered(tokenizer: Tokenizer, question: Question, reply: Sequence[int]) -> Answered:
    """Returns what a model answered to a question, as text.

    Args:
        tokenizer: The model's.
        question: The question.
        reply: The ids that it gave.
    """
    decode = tokenizer.decode
    return Answered(
        answer=decode(list(reply), skip_specials=True),
        expected=decode(list(question.expected), skip_specials=True),
        prompt=decode(list(question.prompt)),
        record=question.record,
    )
