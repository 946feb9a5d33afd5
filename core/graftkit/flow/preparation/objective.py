"""What a run minimizes: the likelihood, or what its objective says of log-probabilities or of a head's scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graftkit.flow.preparation.named_objective import NamedSampled, named_objective
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import SCORING, labels_of
from graftkit.interfaces.objective_config import SimilarityConfig, TeacherConfig
from graftkit.recipe.bind import BoundRecipe
from graftkit.training.embedding_loss import Documents, EmbeddingLoss, Pairs
from graftkit.training.head_loss import HeadLoss, OfSequences, OfTokens
from graftkit.training.objective_loss import ObjectiveLoss
from graftkit.training.sampled_loss import SampledLoss, SamplingPlan
from graftkit.training.start_scores import KeptStart
from graftkit.training.step_loss import Passes, StepLoss

__all__ = ["loss_of"]


def loss_of(
    bound: BoundRecipe,
    host: PluginHost,
    network: Any,
    sampling: SamplingPlan | None = None,
    start: KeptStart | None = None,
) -> Callable[[Passes], StepLoss] | None:
    """Returns what makes the loss of steps and holdout records; None for the likelihood.

    Args:
        bound: The recipe, which says the objective.
        host: The plugins.
        network: The model.
        sampling: How answers are sampled, for an objective that learns from those.
        start: What is trained as it was at the start, where such an objective compares with that.
    """
    choice, config = bound.objective, bound.objective_config
    if config.minimizes == "likelihood":
        return None
    made = host.registry.create(choice.registered, choice.config)
    if sampling is not None:
        sampled = NamedSampled(made, choice.registered)
        return lambda passes: SampledLoss(network, sampled, passes, sampling, start)
    objective = named_objective(made, choice.registered)
    if config.head == "embedding":
        compared = Pairs if isinstance(config, SimilarityConfig) else Documents
        return lambda passes: EmbeddingLoss(network, objective, passes, compared)
    if config.head in SCORING:
        labels, named = labels_of(network.config.to_dict()), config.label_weights
        weights = [named.get(label, 1.0) for label in labels] if named else None
        scored = OfTokens(labels, weights) if config.head == "token" else OfSequences(weights)
        return lambda passes: HeadLoss(network, objective, passes, scored)
    temperature = config.temperature if isinstance(config, TeacherConfig) else 1.0
    return lambda passes: ObjectiveLoss(network, objective, passes, config.minimizes, temperature=temperature)
