"""Takes up what a run that goes on has trained: from a checkpoint, or as it has finished."""

from __future__ import annotations

from graftkit.articles import counted
from graftkit.errors import FolderError, RecipeError, named
from graftkit.flow.folders.listed_files import vouched_checkpoints
from graftkit.flow.folders.metrics import (
    METRICS,
    Metrics,
    kept_evaluations,
    missing_evaluations,
    missing_steps,
    read_metrics,
)
from graftkit.flow.folders.own_files import CHECKPOINTS
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.flow.state.first_manifest import ADAPTER
from graftkit.flow.state.resume import Resumed, check_state
from graftkit.model.adapt import AdaptedModel
from graftkit.option_names import option
from graftkit.recipe.schema.training import TrainingSection
from graftkit.report.run_manifest import FileFacts
from graftkit.store.files import write_text
from graftkit.training.checkpoint import (
    damaged_checkpoints,
    forget_after,
    latest_checkpoint,
    read_checkpoint,
    read_evaluations,
)
from graftkit.training.loop import Trainer
from graftkit.training.schedule import FALLS_BY_STEPS_TAKEN, rate_of_step, warmup_steps

__all__ = ["go_back", "is_trained", "take_adapter", "take_up"]

_PUT_BACK = "Put it back: what lies there is not what was trained."


def is_trained(run: RunContext, resumed: Resumed, trainer: Trainer) -> bool:
    """Tells whether a run that goes on has finished with all the steps that it now takes."""
    taken = resumed.trained_steps
    return taken is not None and (resumed.only_exports(run.plan.bound.resolved()) or taken == len(trainer.plan))


def take_up(run: RunContext, resumed: Resumed, trainer: Trainer, stage: StageScope) -> None:
    """Takes up what the run that goes on has trained, and has to train further.

    Raises:
        FolderError: It has finished, and what it goes on from is gone.
        RecipeError: It has finished after more steps than the recipe now makes.
        TrainingError: The checkpoint is not of this model, or can't be read.
    """
    taken, steps = resumed.trained_steps, len(trainer.plan)
    if taken is None:
        go_back(run, trainer, stage)
    elif steps < taken:
        raise RecipeError(
            f"the recipe makes {counted(steps, 'step')}, but the run in {run.folder} has finished after {taken}",
            hint=f"Say more epochs or steps, or start anew with {option('overwrite')}.",
        )
    else:
        check_state(run.folder, taken, resumed.manifest)
        go_back(run, trainer, stage)
        before = resumed.planned_steps or taken
        recipe = run.plan.bound.recipe
        alone = recipe.tokenizer.embedding_warmup_steps if recipe.tokenizer else 0
        if not _has_rates_of(before, steps, recipe.training, alone):
            stage.notice(_describe_stretch(recipe.training, taken, before, steps))


def take_adapter(run: RunContext, resumed: Resumed, model: AdaptedModel, trainer: Trainer, stage: StageScope) -> None:
    """Takes over the adapter that a finished run has saved; its checkpoint may be gone.

    Raises:
        FolderError: The adapter is another one than the run has trained, or of another step than it has exported.
    """
    from graftkit.flow.folders.run_adapter import read_adapter

    taken, exported = resumed.trained_steps or 0, resumed.manifest.exported
    expected = exported.step if exported else taken
    facts, state = read_adapter(run.folder)
    if run.files.is_changed(ADAPTER):
        raise FolderError("it is not the file that was written", where=str(run.folder / ADAPTER), hint=_PUT_BACK)
    if facts.get("step") != expected:
        where = str(run.folder / "adapter")
        raise FolderError(f"it is of step {facts.get('step')!r:.20}, not of step {expected}", where=where)
    with named(str(run.folder / "adapter")):
        model.load_adapter_state(state)
    trainer.step = taken
    run.record(exported=exported)
    _tell_of_damage(stage, "", changed=run.files.is_changed(METRICS))
    stage.notice(f"nothing is trained: the run took its {counted(taken, 'step')} before")


def go_back(run: RunContext, trainer: Trainer, stage: StageScope) -> None:
    """Takes up the newest whole checkpoint, and forgets the lines of steps after it.

    Raises:
        TrainingError: The checkpoint is not of this model, or can't be read.
    """
    if run.resumed and run.resumed.back_to is not None:
        stage.notice(f"the loss had gone wrong: what was trained after step {run.resumed.back_to} is trained anew")
        forget_after(run.folder / CHECKPOINTS, run.resumed.back_to)
    states = vouched_checkpoints(run.resumed.manifest) if run.resumed else None
    for name, fault in damaged_checkpoints(run.folder / CHECKPOINTS, states).items():
        stage.notice(f"{CHECKPOINTS}/{name} {fault} and is not used")
    found = latest_checkpoint(run.folder / CHECKPOINTS, states)
    if found is None:
        _write_metrics(run, "")
        stage.notice("there is no checkpoint to go on from: training starts at the first step")
        return
    step, path = found
    with named(str(path)):
        trainer.load_state(step, read_checkpoint(path))
    vouched, changed = run.resumed.manifest.vouched(METRICS) if run.resumed else None, run.files.is_changed(METRICS)
    metrics = read_metrics(run.folder / METRICS, vouched.bytes if vouched and not changed else None)
    kept = kept_evaluations(read_evaluations(path))
    missing = (missing_steps(metrics.steps, step), missing_evaluations(metrics, kept))
    _tell_of_damage(stage, "; ".join(filter(None, missing)), changed=changed)
    metrics = Metrics(metrics.steps, kept) if changed else metrics.with_evaluations(kept)
    _write_metrics(run, metrics.until(step).text())
    for line in metrics.until(step).steps:
        trainer.watch.look(line["step"], line["loss"], line["gradient_norm"])
    stage.notice(f"going on after step {step}")


def _write_metrics(run: RunContext, text: str) -> None:
    """Writes the lines that a run goes on with; its manifest vouches for them before, as they began the older file."""
    run.manifest_file.keep(METRICS, FileFacts.of(text))
    run.save()
    write_text(run.folder / METRICS, text)


def _tell_of_damage(stage: StageScope, missing: str, *, changed: bool) -> None:
    """Names what has become of the metrics meanwhile: no weight depends on them, and the run goes on."""
    if missing:
        stage.notice(missing)
    elif changed:
        stage.notice(f"{METRICS} is not the file that the run wrote before it stopped")


def _has_rates_of(planned: int, steps: int, options: TrainingSection, alone: int) -> bool:
    """Tells whether the steps of a run have the rates that they have in a longer one.

    Args:
        planned: How many it planned.
        steps: How many the longer one has.
        options: The recipe's training section.
        alone: How many of them train the new rows alone: the adapter's schedule starts after them.
    """
    if planned == steps:
        return True
    return options.schedule in FALLS_BY_STEPS_TAKEN and all(
        warmup_steps(planned - first, options.warmup, options.warmup_steps)
        == warmup_steps(steps - first, options.warmup, options.warmup_steps)
        for first in (0, alone)
    )


def _describe_stretch(options: TrainingSection, taken: int, planned: int, steps: int) -> str:
    """Says what more steps make of the schedule of the learning rate.

    Args:
        options: The recipe's training section.
        taken: How many steps were taken.
        planned: How many the run planned that took the last of them.
        steps: How many there are now.
    """

    def rate(step: int, of: int) -> float:
        return rate_of_step(options, step, of, options.learning_rate)

    return (
        f"{taken} steps were taken on the {options.schedule} schedule of {planned}; the others are on that of {steps}: "
        f"the rate, {rate(taken, planned):.1e} in the last step, is {rate(taken + 1, steps):.1e} in the next; {steps} "
        "steps in one run give other weights"
    )
