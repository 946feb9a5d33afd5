"""What a recipe must say where its objective learns from sampled answers; imports without torch."""

from __future__ import annotations

from graftkit.errors import DataError, RecipeError
from graftkit.interfaces.metric import MetricConfig
from graftkit.interfaces.objective import SAMPLED_METRICS
from graftkit.interfaces.objective_config import SampledConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.suggest import known_names

__all__ = ["refuse_sampled", "refuse_sampling_of_parts", "refuse_unanswered", "rewarding"]


def rewarding(bound: BoundRecipe) -> list[str]:
    """Returns the names of the metrics that are summed up to a sampled answer's reward; none where none is sampled."""
    config = bound.objective_config
    return list(config.rewards or bound.metric_names) if isinstance(config, SampledConfig) else []


def refuse_unanswered(bound: BoundRecipe, unanswered: str) -> None:
    """Refuses records without an expected answer where a metric in use compares answers with one.

    Those are the metrics of the rewards, and all of them where holdout records are answered.

    Args:
        bound: The recipe.
        unanswered: Where the first record stands that has none; "" where all have one.

    Raises:
        DataError: There is such a record, and such a metric.
    """
    if not unanswered or bound.absent_metrics:  # which says that nothing is answered
        return
    used = bound.metric_names if bound.recipe.evaluation.answers else rewarding(bound)
    configs = {label: bound.metrics[label].config for label in used}
    comparing = [
        label
        for label, config in configs.items()
        if not (isinstance(config, MetricConfig) and not config.needs_expected)
    ]
    if not comparing:
        return
    raise DataError(
        f"the record has no expected answer, with which the metric {comparing[0]} compares what the model answers",
        where=unanswered,
        hint="Reward by metrics that need none, under evaluation.metrics: json-valid, {use: regex, pattern: ...}, "
        "{use: contains, text: ...} or a plugin's that says so; or give every record an answer.",
    )


def refuse_sampled(bound: BoundRecipe, max_length: int) -> None:
    """Refuses rewards that no metric gives, metrics of names in use, and answers for which there is no room.

    Args:
        bound: The recipe.
        max_length: Tokens of a prompt and its answer at most.

    Raises:
        RecipeError: There are such.
    """
    config, where = bound.objective_config, bound.document.where
    if not isinstance(config, SampledConfig):
        return
    unknown = next((label for label in config.rewards if label not in bound.metric_names), None)
    if unknown is not None:
        raise RecipeError(
            f"objective.rewards: evaluation.metrics has no '{unknown[:60]}'",
            where=where(("objective", "rewards", unknown)),
            hint=f"{known_names(unknown, bound.metric_names)} Name further ones there: evaluation: {{metrics: [...]}}.",
        )
    taken = next((label for label in SAMPLED_METRICS if label in bound.metric_names), None)
    if taken is not None:
        raise RecipeError(
            f"evaluation.metrics: one is called '{taken}', as what the objective {bound.objective.use} reports itself",
            where=where(("evaluation", "metrics")),
            hint="Give it another name: {use: ..., name: ...}.",
        )
    if config.max_new_tokens >= max_length:
        raise RecipeError(
            f"objective.max_new_tokens is {config.max_new_tokens}, and a prompt and its answer have {max_length} "
            "tokens together at most: there is no room for a prompt",
            where=where(("objective", "max_new_tokens")),
            hint="Raise data.max_length, or say fewer tokens.",
        )


def refuse_sampling_of_parts(bound: BoundRecipe, way: str) -> None:
    """Refuses to sample answers where processes keep the frozen weights among them.

    Each token of an answer would put every block together, and processes sample different numbers of tokens.

    Args:
        bound: The recipe.
        way: What `training.parallel` says, or comes to.

    Raises:
        RecipeError: The objective learns from sampled answers, and each process does not hold the whole model.
    """
    if way != "data" and isinstance(bound.objective_config, SampledConfig):
        raise RecipeError(
            f"the objective {bound.objective.use} samples answers, a token at a time, and each would have all frozen "
            f"weights sent with training.parallel: {way}",
            where=bound.document.where(("training", "parallel")),
            hint="Say training.parallel: data, with a quantizer that lets the whole model fit each process.",
        )
