"""Evaluates the model on the holdout records, before training and after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from graftkit.corpus.tokenizer_template import chat_template_of
from graftkit.errors import DataError, TrainingError
from graftkit.flow.base_files.open_model import embedding_rows
from graftkit.flow.folders.own_files import answers_file
from graftkit.flow.preparation.base_model import LoadedBase, LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.records.chat import chat_options
from graftkit.flow.records.holdout import encode_samples, loss_bytes
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.flow.training.answers import answer_all, keep_answers, mean_scores, metrics_of, questions_of
from graftkit.flow.training.rewards import loss_in
from graftkit.flow.training.worst_records import WORST_FILE, keep_worst
from graftkit.host.lifecycle import EvaluationInfo
from graftkit.interfaces.objective_config import AnyObjectiveConfig
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.store.token_store import TokenStore
from graftkit.training.loop import holdout_loss
from graftkit.training.processes import ALONE, Processes
from graftkit.training.sampled_loss import SamplingPlan
from graftkit.training.step_loss import OnPass, Passes, StepLoss, StepScore
from graftkit.training.together import send_parameters

__all__ = ["evaluate", "evaluate_base", "measured_of", "score_holdout"]

When = Literal["base", "before", "after"]


def evaluate(run: RunContext, loaded: LoadedModel, corpus: Corpus, when: When, sampling: SamplingPlan | None) -> None:
    """Measures the holdout loss and, where the recipe asks for answers, their scores; keeps both in the manifest."""
    if not len(corpus.holdout):
        return
    if (when == "before" or _is_as_it_finished(run)) and _known_already(run, when):
        return
    options = run.plan.bound.recipe
    with run.stage(f"evaluation {when}") as stage:
        run.processes.announce({"part": "evaluation"})
        score = score_holdout(run, loaded, corpus, sampling, stage.progress("passes"))
        stage.facts |= _measured(run, stage, score, corpus.holdout, run.vocabulary.tokenizer)
        if when == "after":
            keep_worst(run, corpus.holdout, score.losses)
        wanted = corpus.answers[: options.evaluation.answers]
        if wanted:
            answers = answer_all(
                loaded.model.network,
                questions_of(run, corpus, wanted),
                bound=run.plan.bound,
                metrics=metrics_of(run.plan.bound, run.host),
                tokenizer=run.vocabulary.tokenizer,
                stop=corpus.stop,
                report=stage.progress("tokens"),
            )
            stage.facts |= {"scores": mean_scores(answers), "answers": len(answers)}
            keep_answers(run, when, answers)
        run.record(metrics={**run.manifest.metrics, when: dict(stage.facts)})
    _tell_of_evaluation(run, when)


def evaluate_base(run: RunContext, base: LoadedBase) -> None:
    """Measures the base model with its own vocabulary, where the run gives it another one."""
    minimizes = run.plan.bound.objective_config.minimizes
    if run.vocabulary.change is None or not run.plan.samples.holdout or minimizes != "likelihood":
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
        score = _scored(run, base.network, base, store, None, stage.progress("passes"), ALONE)
        stage.facts |= _measured(run, stage, score, store, tokenizer)
        run.record(metrics={**run.manifest.metrics, "base": dict(stage.facts)})
    _tell_of_evaluation(run, "base")


def _tell_of_evaluation(run: RunContext, when: When) -> None:
    found = run.manifest.metrics[when]
    step = run.manifest.training.get("steps", 0) if when == "after" else 0
    if run.manifest.exported and when == "after":
        step = run.manifest.exported.step
    told = EvaluationInfo(
        when, step, found.holdout_loss, found.bits_per_byte, found.answers, found.scores, found.metrics
    )
    run.broadcast("graftkit_evaluation_finished", evaluation=told)


def _is_as_it_finished(run: RunContext) -> bool:
    """Whether the run goes on from one that had finished, and has taken no step more."""
    steps = run.manifest.training.get("steps")
    return run.resumed is not None and run.resumed.finished and run.resumed.trained_steps == steps


def _known_already(run: RunContext, when: When) -> bool:
    """Takes over what the run that is resumed measured then, where it did."""
    known = run.resumed.manifest.metrics.get(when) if run.resumed else None
    if known is None:
        return False
    changed = next(filter(run.files.is_changed, [answers_file(when), *([WORST_FILE] if when == "after" else [])]), None)
    if changed is not None:
        stage = f"evaluation {when}"
        run.notice(stage, f"{changed} is not the file that the run wrote before: the model is evaluated anew")
        return False
    run.record(metrics={**run.manifest.metrics, when: known})
    return True


def score_holdout(
    run: RunContext, loaded: LoadedModel, corpus: Corpus, sampling: SamplingPlan | None, report: OnPass
) -> StepScore:
    """Returns the loss of the holdout records; all processes that train together call it, with rank 0's parameters.

    Args:
        run: The run.
        loaded: The model.
        corpus: The records.
        sampling: How answers are sampled, where the run learns from those.
        report: Called before each pass of this process with how many are done and how many it has; raises to stop.
    """
    send_parameters(run.processes, loaded.model.trainable_parameters().values())
    loss = loss_in(run, loaded.model.network, sampling)
    return _scored(run, loaded.model.network, loaded, corpus.holdout, loss, report, run.processes)


def _scored(
    run: RunContext,
    network: Any,
    loaded: LoadedBase | LoadedModel,
    store: TokenStore,
    loss: Callable[[Passes], StepLoss] | None,
    report: OnPass,
    processes: Processes,
) -> StepScore:
    return holdout_loss(
        network,
        store,
        loaded.device,
        run.plan.bound.recipe.training.pass_tokens,
        report,
        packed=loaded.packing.packed,
        loss=loss,
        processes=processes,
    )


def _measured(
    run: RunContext, stage: StageScope, score: StepScore, store: TokenStore, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns the loss and what else the objective tells; of the likelihood also that of a byte of text, in bits."""
    config = run.plan.bound.objective_config
    if not math.isfinite(score.loss):
        hint = "The base model's weights or config.json are damaged"
        if stage.name == "evaluation after":
            hint = "A lower training.learning_rate usually helps"
        elif config.minimizes != "likelihood":
            hint += f", or the objective {run.plan.bound.objective.use} makes losses that are no numbers"
        raise TrainingError(f"the holdout loss is {score.loss}", where=stage.name, hint=f"{hint}.")
    return measured_of(config, score, store, tokenizer)


def measured_of(
    config: AnyObjectiveConfig, score: StepScore, store: TokenStore, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns what is kept of an evaluation: the loss and what else the objective tells, or bits per byte of text.

    Args:
        config: The objective's fields.
        score: What was measured.
        store: The examples.
        tokenizer: The tokenizer that they are made with.
    """
    if config.minimizes != "likelihood" or config.head == "masked":
        return {"holdout_loss": score.loss, "metrics": dict(score.metrics)}
    loss, weight_sum = score.loss, float(store.weight_sum.sum())
    size = loss_bytes(store, tokenizer)
    return {"holdout_loss": loss, "bits_per_byte": loss * weight_sum / math.log(2) / max(1, size), "bytes": round(size)}
