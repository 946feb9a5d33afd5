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

__all__ = ["Answer", "answer_all", "answered", "asked", "keep_answers", "mean_scores", "question_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a holdout record, and what that is worth.

    Attributes:
        answered: The record, and what was said.
        scores: What it is worth by each metric.
    """

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
    prompted = asked(run, corpus, numbers)
    for number, batch in enumerate(batches):
        examples = [corpus.holdout[number] for number in batch]
        prompts, records = zip(*prompted[len(answers) : len(answers) + len(batch)], strict=True)

        def poll(made: int, number: int = number) -> None:
            report(number * options.max_new_tokens + made, len(batches) * options.max_new_tokens)

        replies = generate_greedily(
            loaded.model.network,
            prompts,
            max_new_tokens=options.max_new_tokens,
            stop=corpus.stop,
            poll=poll,
        )
        given = map(answered, [run] * len(batch), examples, prompts, replies, records)
        answers += [Answer(each, _scores(metrics, each)) for each in given]
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
            "question": question_of(answer.answered.record),
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


def question_of(record: Sample) -> str:
    """Returns what a record asks: the last thing said before its answer, without a chat template; "" for none."""
    record = shown(record)
    if isinstance(record, Completion):
        return record.prompt
    if not isinstance(record, Conversation):
        return ""
    said = list(record.messages)
    while said and said[-1].role != "assistant":
        said.pop()
    return next((message.content for message in reversed(said[:-1]) if message.role != "assistant"), "")


def asked(run: RunContext, corpus: Corpus, numbers: Sequence[int]) -> list[tuple[list[int], Sample]]:
    """Returns each answer's prompt as it is in use, training's own where that can't be told, and its record."""
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
        (encoder.prompt_in_use(part) or example.ids[: example.prompt_length].tolist(), part)
        for example, part in zip(examples, parts, strict=False)
    ]


def answered(
    run: RunContext, example: Example, prompt: Sequence[int], reply: Sequence[int], record: Sample
) -> Answered:
    """Returns what a model answered to an example, as text.

    Args:
        run: The run.
        example: The example.
        prompt: The ids that the model went on with.
        reply: The ids that it gave.
        record: The example's record.
    """
    decode = run.vocabulary.tokenizer.decode
    goes_on = example.ids[: len(prompt)].tolist() == prompt
    start = len(prompt) if goes_on else example.prompt_length
    first = example.sequences[0]
    expected = first.ids[start:][first.loss_mask[start:]].tolist()
    return Answered(
        answer=decode(list(reply), skip_specials=True),
        expected=decode(expected, skip_specials=True),
        prompt=decode(prompt),
        record=record,
    )
