"""What a run minimizes: the likelihood, or what its objective says of log-probabilities or of a head's scores."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from graftkit.flow.preparation.named_objective import NamedObjective
from graftkit.flow.state.context import RunContext
from graftkit.interfaces.objective import TeacherConfig
from graftkit.training.sequence_loss import SequenceLoss
from graftkit.training.step_loss import ObjectiveLoss, Passes, StepLoss

__all__ = ["loss_of"]


def loss_of(run: RunContext, network: nn.Module) -> Callable[[Passes], StepLoss] | None:
    """Returns what makes the loss of a run's steps and holdout records; None for the likelihood."""
    choice, config = run.plan.bound.objective, run.plan.bound.objective_config
    if config.likelihood:
        return None
    objective = NamedObjective(run.host.registry.create(choice.registered, choice.config), choice.registered)
    if config.head == "sequence":
        return lambda passes: SequenceLoss(network, objective, passes)
    temperature = config.temperature if isinstance(config, TeacherConfig) else 1.0
    return lambda passes: ObjectiveLoss(
        network,
        objective,
        passes,
        by_example=config.by_example,
        mean_of=config.mean_of,
        temperature=temperature,
    )
