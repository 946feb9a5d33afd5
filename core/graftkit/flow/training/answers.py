"""Answers holdout records, and says what each answer is worth by the recipe's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import has_answer
from graftkit.flow.folders.folder import answers_file
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.interfaces.metric import Answered, Metric
from graftkit.interfaces.samples import Completion, Conversation, Sample
from graftkit.model.generate import generate_greedily
from graftkit.report.run_manifest import FileFacts
from graftkit.store.files import to_json, write_text
from graftkit.store.token_store import Example

__all__ = ["Answer", "Question", "answer_all", "answered", "asked", "keep_answers", "mean_scores"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked for the answer of a holdout record.

    Attributes:
        prompt: The ids that it goes on with.
        text: The last thing said before the answer, without a chat template; "" for none.
        record: The record.
    """

    prompt: list[int]
    text: str
    record: Sample


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


def answer_all(
    run: RunContext, loaded: LoadedModel, stage: StageScope, corpus: Corpus, numbers: Sequence[int]
) -> list[Answer]:
    """Answers some of the holdout examples, many side by side.

    Args:
        run: The run.
        loaded: The model.
        stage: Told how far it came.
        corpus: The examples.
        numbers: Which of the holdout examples.

    Raises:
        DataError: A metric can't score a record.
        PluginCallError: A metric gave a score that is no number.
    """
    bound = run.plan.bound
    options = bound.recipe.evaluation
    metrics: dict[str, Metric] = {
        label: run.host.registry.create(choice.registered, choice.config) for label, choice in bound.metrics.items()
    }
    answers: list[Answer] = []
    batches = [numbers[at : at + options.batch_size] for at in range(0, len(numbers), options.batch_size)]
    report = stage.progress("tokens")
    questions = asked(run, corpus, numbers)
    for number, batch in enumerate(batches):
        examples = [corpus.holdout[number] for number in batch]
        put = questions[len(answers) : len(answers) + len(batch)]

        def poll(made: int, number: int = number) -> None:
            report(number * options.max_new_tokens + made, len(batches) * options.max_new_tokens)

        replies = generate_greedily(
            loaded.model.network,
            [question.prompt for question in put],
            max_new_tokens=options.max_new_tokens,
            stop=corpus.stop,
            poll=poll,
        )
        for example, question, reply in zip(examples, put, replies, strict=True):
            given = answered(run, example, question, reply)
            answers.append(Answer(question.text, given, _scores(metrics, given)))
    return answers


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
    data = [
        {
            "where": answer.answered.record.where,
            "question": answer.question,
            "prompt": answer.answered.prompt,
            "expected": answer.answered.expected,
            "answer": answer.answered.answer,
            "right": answer.right,
            "scores": dict(answer.scores),
        }
        for answer in answers
    ]
    fingerprint = run.vocabulary.tokenizer.fingerprint
    text = to_json({"tokenizer_fingerprint": fingerprint, "answers": data})
    write_text(run.folder / answers_file(when), text)
    run.keep(answers_file(when), FileFacts.of(text))


def _scores(metrics: Mapping[str, Metric], answered: Answered) -> dict[str, float]:
    return {label: float(metric.score(deepcopy(answered))) for label, metric in metrics.items()}


def _asked_in(record: Sample) -> str:
    """Returns the last thing said before a record's last answer; "" for none."""
    if isinstance(record, Completion):
        return record.prompt
    if not isinstance(record, Conversation):
        return ""
    said = list(record.messages)
    while said and said[-1].role != "assistant":
        said.pop()
    return next((message.content for message in reversed(said[:-1]) if message.role != "assistant"), "")


def asked(run: RunContext, corpus: Corpus, numbers: Sequence[int]) -> list[Question]:
    """Returns what is asked for the answer of some holdout examples, of a conversation the last that is learnt.

    The prompt is that of use, training's own where that can't be told.

    Args:
        run: The run.
        corpus: The examples.
        numbers: Which of the holdout examples.
    """
    encoder = run.vocabulary.encoder
    records = run.plan.samples.holdout.at({*corpus.answered[: len(numbers)]})
    parts = (
        part
        for sample in records
        for part in encoder.turns(shown(sample))
        for example in encoder.encode(part).examples
        if has_answer(example, part)
    )
    examples = (corpus.holdout[number] for number in numbers)
    return [
        Question(
            encoder.prompt_in_use(part) or example.ids[: example.prompt_length].tolist(),
            _asked_in(encoder.up_to_last_answer(part) or part),
            part,
        )
        for example, part in zip(examples, parts, strict=False)
    ]


def answered(run: RunContext, example: Example, question: Question, reply: Sequence[int]) -> Answered:
    """Returns what a model answered to an example, as text.

    Args:
        run: The run.
        example: The example.
        question: What it was asked.
        reply: The ids that it gave.
    """
    decode, prompt = run.vocabulary.tokenizer.decode, question.prompt
    goes_on = example.ids[: len(prompt)].tolist() == prompt
    start = len(prompt) if goes_on else example.prompt_length
    first = example.sequences[0]
    expected = first.ids[start:][first.loss_mask[start:]].tolist()
    return Answered(
        answer=decode(list(reply), skip_specials=True),
        expected=decode(expected, skip_specials=True),
        prompt=decode(prompt),
        record=question.record,
    )
