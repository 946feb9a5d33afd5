"""Evaluates the model on the holdout records, before training and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graftkit.corpus.answers_compared import shown
from graftkit.corpus.encode import chat_template_of, has_answer
from graftkit.errors import DataError, TrainingError
from graftkit.flow.base_model import LoadedBase, LoadedModel
from graftkit.flow.chat import chat_options
from graftkit.flow.context import RunContext, StageScope
from graftkit.flow.corpus import Corpus
from graftkit.flow.holdout import encode_samples, loss_bytes
from graftkit.flow.objective import loss_of
from graftkit.flow.open_model import embedding_rows
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.generate import generate_greedily
from graftkit.store.files import write_json
from graftkit.store.token_store import Example, TokenStore
from graftkit.training.loop import holdout_loss

__all__ = ["Answer", "evaluate", "evaluate_base"]

When = Literal["base", "before", "after"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A holdout record and what the model said to it."""

    prompt: str
    expected: str
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one, but for white space around it."""
        return self.answer.strip() == self.expected.strip()


def evaluate(run: RunContext, loaded: LoadedModel, corpus: Corpus, when: When) -> None:
    """Measures the holdout loss and, where the recipe asks for it, exact match; keeps both in the manifest."""
    if not len(corpus.holdout):
        return
    if (when == "before" or _is_as_it_finished(run)) and _known_already(run, when):
        return
    options = run.plan.bound.recipe
    with run.stage(f"evaluation {when}") as stage:
        stage.facts |= _measured(run, stage, loaded.model.network, loaded, corpus.holdout)
        wanted = corpus.answers[: options.evaluation.exact_match]
        if wanted:
            answers = _answer_all(run, loaded, stage, corpus, wanted)
            right = sum(answer.right for answer in answers)
            stage.facts |= {"exact_match": right / len(answers), "right": right, "answers": len(answers)}
            _keep(run, when, answers)
        run.record(metrics={**run.manifest.metrics, when: dict(stage.facts)})


def evaluate_base(run: RunContext, base: LoadedBase) -> None:
    """Measures the base model with its own vocabulary, where the run gives it another one."""
    likelihood = run.plan.bound.objective_config.likelihood
    if run.vocabulary.change is None or not run.plan.samples.holdout or not likelihood:
        return
    if _known_already(run, "base"):
        return
    with run.stage("evaluation of the base") as stage:
        tokenizer = run.vocabulary.base
        template = chat_template_of(tokenizer, run.plan.today, chat_options(run.plan.bound))
        rows = embedding_rows(run.plan.files)
        encoder = run.plan.encoder.for_tokenizer(tokenizer, template, rows)
        try:
            store = encode_samples(encoder, run.plan.samples.holdout)
        except DataError as error:
            stage.notice(f"the base model can't be measured with its own vocabulary: {error.message}")
            return
        stage.facts |= _measured(run, stage, base.network, base, store, tokenizer)
        run.record(metrics={**run.manifest.metrics, "base": dict(stage.facts)})


def _is_as_it_finished(run: RunContext) -> bool:
    """Whether the run goes on from one that had finished, and has taken no step more."""
    taken = next((stage for stage in run.manifest.stages if stage.name == "training"), None)
    steps = (taken.model_extra or {}).get("steps") if taken else None
    return run.resumed is not None and run.resumed.finished and run.resumed.trained_steps == steps


def _known_already(run: RunContext, when: When) -> bool:
    """Takes over what the run that is resumed measured then, where it did."""
    known = run.resumed.manifest.metrics.get(when) if run.resumed else None
    if known is not None:
        run.record(metrics={**run.manifest.metrics, when: known})
    return known is not None


def _measured(
    run: RunContext,
    stage: StageScope,
    network: Any,
    loaded: LoadedBase | LoadedModel,
    store: TokenStore,
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """Returns the loss and what else the objective tells; of the likelihood also that of a byte of text, in bits."""
    score = holdout_loss(
        network,
        store,
        loaded.device,
        run.plan.bound.recipe.training.microbatch_tokens,
        stage.progress("passes"),
        packed=loaded.packing.packed,
        loss=loss_of(run, network),
    )
    if not math.isfinite(score.loss):
        raise TrainingError(
            f"the holdout loss is {score.loss}",
            where=stage.name,
            hint="A lower training.learning_rate usually helps."
            if stage.name == "evaluation after"
            else "The base model's weights or config.json are damaged.",
        )
    if not run.plan.bound.objective_config.likelihood:
        return {"holdout_loss": score.loss, "metrics": dict(score.metrics)}
    loss, weight_sum = score.loss, float(store.weight_sum.sum())
    size = loss_bytes(store, tokenizer or run.vocabulary.tokenizer)
    return {"holdout_loss": loss, "bits_per_byte": loss * weight_sum / math.log(2) / max(1, size), "bytes": round(size)}


def _answer_all(
    run: RunContext, loaded: LoadedModel, stage: StageScope, corpus: Corpus, numbers: Sequence[int]
) -> list[Answer]:
    options = run.plan.bound.recipe.evaluation
    answers: list[Answer] = []
    batches = [numbers[at : at + options.batch_size] for at in range(0, len(numbers), options.batch_size)]
    report = stage.progress("tokens")
    prompts = _prompts(run, corpus, numbers)
    for number, batch in enumerate(batches):
        examples = [corpus.holdout[number] for number in batch]
        asked = prompts[len(answers) : len(answers) + len(batch)]

        def poll(made: int, number: int = number) -> None:
            report(number * options.max_new_tokens + made, len(batches) * options.max_new_tokens)

        replies = generate_greedily(
            loaded.model.network,
            asked,
            max_new_tokens=options.max_new_tokens,
            stop=corpus.stop,
            poll=poll,
        )
        answers += [_answer(run, *given) for given in zip(examples, asked, replies, strict=True)]
    return answers


def _prompts(run: RunContext, corpus: Corpus, numbers: Sequence[int]) -> list[list[int]]:
    """Returns the prompt of each of some answers, as it is in use; training's own where that can't be told."""
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
        encoder.prompt_in_use(part) or example.ids[: example.prompt_length].tolist()
        for example, part in zip(examples, parts, strict=False)
    ]


def _answer(run: RunContext, example: Example, prompt: Sequence[int], reply: Sequence[int]) -> Answer:
    decode = run.vocabulary.tokenizer.decode
    goes_on = example.ids[: len(prompt)].tolist() == prompt
    start = len(prompt) if goes_on else example.prompt_length
    shown_first = example.sequences[0]
    expected = shown_first.ids[start:][shown_first.loss_mask[start:]].tolist()
    return Answer(
        prompt=decode(prompt),
        expected=decode(expected, skip_specials=True),
        answer=decode(list(reply), skip_specials=True),
    )


def _keep(run: RunContext, when: When, answers: Sequence[Answer]) -> None:
    """Writes the answers for whoever wants to read them."""
    data: dict[str, Any] = {
        "tokenizer_fingerprint": run.vocabulary.tokenizer.fingerprint,
        "answers": [
            {"prompt": a.prompt, "expected": a.expected, "answer": a.answer, "right": a.right} for a in answers
        ],
    }
    write_json(run.folder / f"answers-{when}.json", data)
