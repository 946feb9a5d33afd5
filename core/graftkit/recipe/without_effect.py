"""Names what a recipe says and nothing goes by."""

from __future__ import annotations

from collections.abc import Iterator

from graftkit.interfaces.config import StrictModel
from graftkit.interfaces.objective import SampledConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema import EvaluationSection

__all__ = ["without_effect"]


def without_effect(bound: BoundRecipe) -> Iterator[str]:
    """Yields a sentence for each key that the recipe says and that changes nothing, since another one says otherwise.

    A recipe of a manifest says every key: what it says as it is when left out is no such key.
    """
    recipe = bound.recipe
    evaluation, training, tokenizer = recipe.evaluation, recipe.training, recipe.tokenizer
    if tokenizer and not tokenizer.changes_vocabulary:
        yield from _idle(
            "tokenizer", tokenizer, ("embedding_init",), "the rows are those of the adapter in adapter.from"
        )
    sampled = isinstance(bound.objective_config, SampledConfig)
    if not evaluation.answers:
        metrics = () if _usual_metrics(bound) else ("metrics",)
        idle = ("max_new_tokens",) if sampled else (*metrics, *_OF_ANSWERS)
        yield from _idle("evaluation", evaluation, idle, "evaluation.answers is 0")
    if evaluation.every is None:
        yield from _idle("evaluation", evaluation, _OF_EVERY, "evaluation.every is not said")
    elif evaluation.patience is None:
        yield from _idle("evaluation", evaluation, ("min_delta",), "evaluation.patience is not said")
    if training.optimizer == "sgd":
        yield from _idle("training", training, ("beta1", "beta2", "epsilon"), "training.optimizer is sgd")
    if training.warmup_steps is not None:
        yield from _idle(
            "training", training, ("warmup",), "training.warmup_steps says in how many steps the rate rises"
        )
    if training.schedule == "constant":
        yield from _idle("training", training, ("min_lr_ratio",), "training.schedule is constant")
    if sampled:
        keys = ("divergence_factor", "divergence_window")
        yield from _idle("training", training, keys, f"rewards rise and fall, by which {bound.objective.use} learns")
    elif training.divergence_factor is None:
        yield from _idle("training", training, ("divergence_window",), "training.divergence_factor is null")
    if recipe.proof == "later" and not recipe.export:
        yield "proof has no effect: export names no format"


def _usual_metrics(bound: BoundRecipe) -> bool:
    """Tells whether the metrics are those of a recipe that names none, and their fields as when left out."""
    usual = {metric.label: metric.use for metric in EvaluationSection().metrics}
    named = {label: choice.use for label, choice in bound.metrics.items()}
    return named == usual and all(choice.config == type(choice.config)() for choice in bound.metrics.values())


def _idle(name: str, section: StrictModel, keys: tuple[str, ...], why: str) -> Iterator[str]:
    fields = type(section).model_fields
    said = (key for key in keys if getattr(section, key) != fields[key].default)
    return (f"{name}.{key} has no effect: {why}" for key in said)


_OF_ANSWERS = ("max_new_tokens", "batch_size")
_OF_EVERY = ("sample", "min_delta")
