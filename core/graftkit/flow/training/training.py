"""Trains a run's model: a line of metrics a step, checkpoints, and the adapter's own tensors at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from graftkit.articles import counted
from graftkit.errors import DataError, HookError, LossError, RecipeError, named
from graftkit.exporting.shards import save_tensors
from graftkit.flow.events import PassFinished, StepFinished
from graftkit.flow.folders.listed_files import vouched_checkpoints
from graftkit.flow.folders.metrics import METRICS, Metrics, read_metrics, to_line
from graftkit.flow.folders.own_files import CHECKPOINTS
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import RECORD, Corpus
from graftkit.flow.preparation.masking import masking_in
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.flow.training.go_on import is_trained, take_adapter, take_up
from graftkit.flow.training.holdout_watch import HoldoutWatch
from graftkit.flow.training.rewards import loss_in, mixture_of
from graftkit.flow.training.sample_answers import SampleAnswers
from graftkit.host.lifecycle import CheckpointInfo, StepInfo
from graftkit.host.process_state import ProcessState
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.model.adapt import AdaptedModel
from graftkit.model.outer_layers import hidden_matrices
from graftkit.option_names import option
from graftkit.recipe.schema.tokenizer import TokenizerSection
from graftkit.report.run_manifest import ExportedStep, FileFacts, StepFailure
from graftkit.store.files import write_json
from graftkit.store.folders import atomic_folder
from graftkit.store.line_file import LineFile
from graftkit.training.checkpoint import (
    checkpoint_of,
    read_checkpoint,
    state_facts,
    state_file,
    write_checkpoint,
)
from graftkit.training.early_stop import best_step
from graftkit.training.loop import Trainer
from graftkit.training.optimizers import RowTraining
from graftkit.training.sampled_loss import SamplingPlan

__all__ = ["make_trainer", "save_adapter", "train"]

SHOWN_RECORDS = 8
"""How many of a failed step's records its error names; the manifest names all."""


def train(run: RunContext, loaded: LoadedModel, corpus: Corpus, sampling: SamplingPlan | None) -> None:
    """Trains, writes `metrics.jsonl`, `checkpoints/` and `adapter/`.

    When it is stopped half-way, by whatever, the state as of the last whole step is saved, and the manifest says how
    far it came: a resumed run goes on from there.

    Args:
        run: The run.
        loaded: Its model.
        corpus: Its examples.
        sampling: How it samples answers, where it learns from those.
    """
    model, trainer = loaded.model, make_trainer(run, loaded, corpus, sampling)
    _check_first(run, trainer)
    with run.stage("training") as stage:
        _tell_of_idle(run, trainer, stage)
        _tell_of_room(run, corpus, stage)
        if run.resumed is not None and is_trained(run, run.resumed, trainer):
            take_adapter(run, run.resumed, model, trainer, stage)
        else:
            if run.resumed is not None:
                take_up(run, run.resumed, trainer, stage)
            if not loaded.packing.packed and not _samples(run):
                alone, shared = trainer.count_passes(packed=False), trainer.count_passes(packed=True)
                stage.notice(f"sequences run one by one: {alone:,} passes, where packed ones would take {shared:,}")
            run.record(exported=_take_steps(run, loaded, corpus, trainer, stage))
        save_adapter(run, model, run.manifest.exported.step if run.manifest.exported else trainer.step)
        metrics = read_metrics(run.folder / METRICS)
        if trainer.step and len(metrics.steps) == trainer.step and not any(map(_has_gradient, metrics.steps)):
            stage.notice(f"no step had a gradient: nothing was learnt{_why_nothing(run, metrics)}")
        stage.facts |= _facts(trainer, metrics, sampled=_samples(run))


def _tell_of_idle(run: RunContext, trainer: Trainer, stage: StageScope) -> None:
    """Says where there are more processes than a step has passes, or prompts that are answered."""
    count = run.processes.count
    if count > 1 and _samples(run):
        most = max(map(len, trainer.plan), default=0)
        if most < count:
            stage.notice(
                f"a step has {most:,} prompts at most, so that {count - most:,} of {count:,} processes sample nothing: "
                "more training.tokens_per_step gives each some"
            )
        return
    most = trainer.most_passes() if count > 1 else count
    if most < count:
        stage.notice(
            f"a step has {most:,} passes at most, so that {count - most:,} of {count:,} processes have nothing to do: "
            "less training.microbatch_tokens, or more training.tokens_per_step, gives each a part"
        )


def _tell_of_room(run: RunContext, corpus: Corpus, stage: StageScope) -> None:
    """Says where sampled answers have less room after their prompts than the recipe gives them."""
    config, most = run.plan.bound.objective_config, run.vocabulary.encoder.max_length
    if not isinstance(config, SampledConfig):
        return
    lengths = corpus.train.prompt_lengths
    short = int((lengths + config.max_new_tokens > most).sum())
    if short:
        stage.notice(
            f"{short:,} of {len(lengths):,} prompts leave an answer fewer tokens than objective.max_new_tokens "
            f"({config.max_new_tokens:,}): prompt and answer have {most:,} together at most (data.max_length)"
        )


def make_trainer(run: RunContext, loaded: LoadedModel, corpus: Corpus, sampling: SamplingPlan | None) -> Trainer:
    """Returns what trains a run's model on its examples."""
    model, store = loaded.model, corpus.train
    return Trainer(
        model.network,
        model.trainable_parameters(),
        store,
        run.plan.bound.recipe.training,
        loaded.device,
        _row_training(run, model),
        rate_scales=model.rate_scales(),
        hidden=hidden_matrices(model.network, model.adapted),
        packed=loaded.packing.packed,
        loss=loss_in(run, model.network, sampling, model.trainable_parameters().values()),
        mixture=mixture_of(run, store),
        masking=masking_in(run, "training"),
        diverges=not _samples(run),
        repeats=run.plan.bound.objective_config.repeats,
        processes=run.processes,
    )


def _take_steps(
    run: RunContext, loaded: LoadedModel, corpus: Corpus, trainer: Trainer, stage: StageScope
) -> ExportedStep:
    """Takes the steps that have not been taken yet, and puts into the model what is exported of them."""
    metrics = LineFile(run.folder / METRICS)
    since = (run.resumed.trained_steps if run.resumed else None) or 0
    watch = HoldoutWatch(run, trainer, corpus.holdout, metrics, read_metrics(run.folder / METRICS), since)
    start = trainer.step

    def on_pass(step: int, done: int, total: int) -> None:
        run.emit(PassFinished(step, len(trainer.plan), done, total))

    run.processes.announce({"part": "training"})
    try:
        watch.after_step()  # a run may have been stopped before it was evaluated
        trainer.run(_on_step(run, trainer, watch, SampleAnswers(run, loaded, corpus)), run.poll, on_pass)
    except BaseException as error:
        run.files.check()  # whatever fails, fails of that where a file was changed under it
        if trainer.whole and trainer.step > start:
            _write_checkpoint(run, trainer, watch)
            save_adapter(run, loaded.model, trainer.step)
            try:
                _tell_of_checkpoint(run, trainer)
            except HookError as second:
                error.add_note(f"Then {second.where}: {second.message}")
        if isinstance(error, LossError):
            raise _naming_records(run, corpus, error) from error
        raise
    else:
        if trainer.step > start:
            _write_checkpoint(run, trainer, watch)
            _tell_of_checkpoint(run, trainer)
    finally:
        metrics.close()
    return _take_exported(run, trainer, watch, stage)


def _take_exported(run: RunContext, trainer: Trainer, watch: HoldoutWatch, stage: StageScope) -> ExportedStep:
    """Puts the best step's parameters into the model where that one is exported, and says which step is, and why."""
    taken, planned, options = trainer.step, len(trainer.plan), run.plan.bound.recipe.evaluation
    early = ""
    if taken < planned:
        early = f"the last {options.patience} evaluations gave no holdout loss that is lower by {options.min_delta:g}"
        stage.notice(f"training stopped early, after step {taken} of {planned}: {early}")
    best, kept = watch.best, watch.best
    if best is not None:
        folder = run.folder / CHECKPOINTS
        vouched = vouched_checkpoints(run.manifest)
        states = {step: path for step in watch.losses if (path := checkpoint_of(folder, step, vouched)) is not None}
        kept = best_step({step: watch.losses[step] for step in states})
        if kept != best:
            stage.notice(
                f"the state after step {best}, which was best, is gone: the best of those that are kept is taken"
            )
        if kept is not None and kept != taken:
            with named(str(states[kept])):
                trainer.load_parameters(kept, read_checkpoint(states[kept]))
    if kept is None:
        return ExportedStep(step=taken, taken=taken, planned=planned, reason="the last step", stopped_early=early)
    reason = f"the lowest holdout loss while training, {watch.losses[kept]:.4f}"
    return ExportedStep(step=kept, taken=taken, planned=planned, reason=reason, stopped_early=early)


def _check_first(run: RunContext, trainer: Trainer) -> None:
    section, steps = run.plan.bound.recipe.tokenizer, len(trainer.plan)
    if not steps:
        raise RecipeError(
            "data.train: with these weights training sees no record that has a token to learn",
            where=run.plan.bound.document.where(("data", "train")),
            hint="Raise a weight, or training.epochs.",
        )
    if section and section.embedding_warmup_steps >= steps:
        raise RecipeError(
            f"tokenizer.embedding_warmup_steps is {section.embedding_warmup_steps}, and training has "
            f"{counted(steps, 'step')}: none is left to the adapter",
            where=run.plan.bound.document.where(("tokenizer", "embedding_warmup_steps")),
        )


def _row_training(run: RunContext, model: AdaptedModel) -> RowTraining:
    section = run.plan.bound.recipe.tokenizer or TokenizerSection()
    return RowTraining(
        frozenset(model.row_parameters()), section.embedding_learning_rate, section.embedding_warmup_steps
    )


def _on_step(
    run: RunContext, trainer: Trainer, watch: HoldoutWatch, samples: SampleAnswers
) -> Callable[[StepInfo], None]:
    every = run.plan.bound.recipe.training.checkpoint_every
    state = ProcessState(cheap=True)
    seconds, taken = 0.0, 0

    def on_step(step: StepInfo) -> None:
        nonlocal seconds, taken
        run.files.check()
        seconds, taken = seconds + step.seconds, taken + 1
        run.put_back(state, "training")
        watch.lines.append(to_line(step))
        failed = {"failure": None} if run.manifest.failure else {}  # that step has been taken by now
        run.record(progress={"stage": "training", "step": step.step, "steps": step.steps}, **failed)
        run.emit(StepFinished(step, seconds_left=seconds / taken * (step.steps - step.step)))
        watch.after_step()
        if step.step < step.steps and ((every and step.step % every == 0) or watch.best == step.step):
            _write_checkpoint(run, trainer, watch)
            _tell_of_checkpoint(run, trainer)
        run.broadcast("graftkit_step_finished", step=step)
        samples.after_step(step)

    return on_step


def _naming_records(run: RunContext, corpus: Corpus, error: LossError) -> LossError:
    """Returns the error that says which records a step's loss was taken over, and what to do; notes the step."""
    numbers = sorted({int(corpus.train.by_example[RECORD][example]) for example in error.examples})
    records: list[str] = []
    with suppress(DataError):  # the file has changed meanwhile
        records += [sample.where for sample in run.plan.samples.train.at(numbers)]
    run.record(failure=StepFailure(step=error.step, reason=error.message, good=error.good, records=records))
    shown, more = records[:SHOWN_RECORDS], len(records) - SHOWN_RECORDS
    listed = [*shown, f"and {more} more, which the manifest lists"] if more > 0 else shown
    rate = run.plan.bound.recipe.training.learning_rate
    hint = (
        f"The state after step {error.step - 1} is kept. Going on with {option('resume')} alone takes the same step "
        f"and fails again. With --set training.learning_rate={rate / 3:.1g}, or another training.max_grad_norm or "
        f"warmup, it goes back to the newest checkpoint up to step {error.good} (training.checkpoint_every), or to "
        "the start"
    )
    hint += _STAYS_NEAR if _samples(run) else "; training.divergence_factor says what divergence is."
    return LossError("\n".join([f"{error.message}{'; its records:' if listed else ''}", *listed]), hint=hint)


def _write_checkpoint(run: RunContext, trainer: Trainer, watch: HoldoutWatch) -> None:
    run.files.check()
    watch.lines.sync()  # a machine that dies must not lose lines of steps that are not taken again
    state = f"{CHECKPOINTS}/{state_file(trainer.step)}"
    run.record(kept={name: facts for name, facts in run.manifest.kept.items() if name != state})
    run.manifest_file.keep(METRICS, FileFacts.model_validate(watch.lines.facts))
    run.save()  # before the checkpoint, so that each line of its steps is vouched for
    fingerprint = run.vocabulary.tokenizer.fingerprint
    path = write_checkpoint(
        run.folder / CHECKPOINTS,
        trainer.step,
        trainer.state(),
        tokenizer_fingerprint=fingerprint,
        evaluations=[
            {"step": line.step, "holdout_loss": line.holdout_loss, "examples": line.examples}
            for line in watch.evaluations
        ],
        keep=run.plan.bound.recipe.training.keep_checkpoints,
        also=() if watch.best is None else (watch.best,),
        others=run.files.theirs(CHECKPOINTS),
    )
    run.manifest_file.keep(state, FileFacts.model_validate(state_facts(path)))
    run.save()


def _tell_of_checkpoint(run: RunContext, trainer: Trainer) -> None:
    found = checkpoint_of(run.folder / CHECKPOINTS, trainer.step)
    if found is not None:
        run.broadcast("graftkit_checkpoint_written", checkpoint=CheckpointInfo(trainer.step, found))


def save_adapter(run: RunContext, model: AdaptedModel, step: int) -> None:
    """Writes `adapter/`: every tensor of the adapter by layer and name, and what is needed to load them.

    Args:
        run: The run.
        model: Its model.
        step: After which step that is.
    """
    with atomic_folder(run.folder / "adapter", keep=run.files.theirs("adapter")) as folder:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in model.adapter_state().items()}
        fingerprint = run.vocabulary.tokenizer.fingerprint
        # One entry alone: safetensors writes several in another order each time, and the same run gives the same bytes.
        save_tensors(tensors, folder / "adapter.safetensors", about={"tokenizer_fingerprint": fingerprint})
        facts = {
            "step": step,
            "adapter": run.manifest.providers["adapter"],
            "quantizer": run.manifest.providers["quantizer"],
            "targets": run.plan.targets,
            "tokenizer_fingerprint": fingerprint,
            "base": run.manifest.model.model_dump(mode="json") if run.manifest.model else None,
        }
        if model.saved_modules:
            facts |= {"saved_modules": list(model.saved_modules), "ties_saved": model.ties_saved}
        write_json(folder / "adapter.json", facts)


def _samples(run: RunContext) -> bool:
    """Whether a run learns from answers that it samples."""
    return isinstance(run.plan.bound.objective_config, SampledConfig)


def _has_gradient(line: Mapping[str, Any]) -> bool:
    return bool(line["gradient_norm"])


_STAYS_NEAR = (
    ". A new run may keep the model nearer its start by objective.beta, or sample likelier answers by a lower "
    "objective.temperature."
)

_SAME_REWARDS = (
    ". All answers to a prompt were worth the same each time: take records that the model answers rightly now and "
    "then, sample more answers (objective.group_size), or add a metric that tells them apart (evaluation.metrics)"
)

_ALL_MASKED = (
    ". Nothing is learnt of answers that are cut off (objective.mask_truncated_completions), and no other was worth "
    "more or less than those to the same prompt on average: raise objective.max_new_tokens, or leave that field out"
)


def _why_nothing(run: RunContext, metrics: Metrics) -> str:
    """Returns why nothing was learnt of sampled answers, and what to do; "" where that is not known."""
    config = run.plan.bound.objective_config
    if not isinstance(config, SampledConfig):
        return ""
    if all(line.get("metrics", {}).get("same_reward") == 1 for line in metrics.steps):
        return _SAME_REWARDS
    return _ALL_MASKED if config.mask_truncated_completions else ""


def _facts(trainer: Trainer, metrics: Metrics, *, sampled: bool) -> dict[str, object]:
    """Returns what the training took; what only its metrics say is None where they are damaged."""
    tokens, loss_tokens = trainer.count_tokens()
    losses = {line["step"]: line["loss"] for line in metrics.steps}
    if trainer.masks or sampled:  # another share in each step
        loss_tokens = sum(line["loss_tokens"] for line in metrics.steps)
    if sampled:
        tokens = sum(line["tokens"] for line in metrics.steps)
    seconds = sum(line["seconds"] for line in metrics.steps)
    return {
        "steps": trainer.step,
        "tokens": tokens,
        "loss_tokens": loss_tokens,
        "first_loss": losses.get(1),
        "last_loss": losses.get(trainer.step),
        "step_seconds": round(seconds, 3),
        "tokens_per_second": round(sum(line["tokens"] for line in metrics.steps) / seconds, 1) if seconds else None,
    }
