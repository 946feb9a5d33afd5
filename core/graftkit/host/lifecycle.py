"""The objects that lifecycle hooks are given. Fields may be added; none is renamed within an API version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graftkit.host.frozen import frozen

__all__ = ["RunInfo", "RunStatus", "StageInfo", "StepInfo"]

RunStatus = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that a hook is called in.

    Attributes:
        folder: The run's folder.
        recipe: The recipe as resolved, as JSON: a copy whose dicts and lists refuse to be changed.
        status: How the run stands at this moment.
    """

    folder: Path
    recipe: Mapping[str, Any]
    status: RunStatus = "running"

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", frozen(self.recipe))


@dataclass(frozen=True, slots=True)
class StageInfo:
    """A stage that is over.

    Attributes:
        name: The stage's name, such as "corpus" or "training".
        seconds: How long it took.
        facts: What it found out, as JSON: a copy that refuses to be changed.
    """

    name: str
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", frozen(self.facts))


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One step of the optimizer: a line of `metrics.jsonl`.

    Attributes:
        step: The step's number, from 1.
        steps: How many there will be.
        loss: Mean negative log-likelihood of a token in the loss, in nats, or what the objective minimizes.
        tokens: Tokens processed; there is no padding.
        loss_tokens: Tokens that the loss was taken over.
        seconds: How long the step took.
        learning_rate: The rate that it used.
        gradient_norm: The gradient's norm before clipping.
        metrics: What else the objective tells of the step, by name, such as the share of pairs in order.
    """

    step: int
    steps: int
    loss: float
    tokens: int
    loss_tokens: int
    seconds: float
    learning_rate: float
    gradient_norm: float
    metrics: Mapping[str, float] = field(default_factory=dict)
