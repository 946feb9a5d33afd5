"""What a run tells while it goes on. `run(on_event=...)` receives these objects, in order, in the run's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graftkit.host.lifecycle import StepInfo

__all__ = [
    "Chosen",
    "Event",
    "HoldoutMeasured",
    "Notice",
    "OnEvent",
    "PassFinished",
    "Progress",
    "SampleAnswered",
    "StageFinished",
    "StageStarted",
    "StepFinished",
    "ignore",
]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins."""

    stage: str


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage is over.

    Attributes:
        stage: Its name.
        seconds: How long it took.
        facts: What it found out, as JSON.
    """

    stage: str
    seconds: float
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """Something long has come a little further.

    Attributes:
        stage: The stage.
        what: What is counted: "tensors", "records", "tokens".
        done: How many are done.
        total: How many there are.
    """

    stage: str
    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The optimizer has taken a step."""

    step: StepInfo


@dataclass(frozen=True, slots=True)
class HoldoutMeasured:
    """The model has been evaluated on holdout examples while it is trained.

    Attributes:
        step: The step that it was evaluated after, from 1.
        steps: How many there will be.
        loss: Mean negative log-likelihood of a token in the loss, in nats.
        examples: How many holdout examples that is of.
    """

    step: int
    steps: int
    loss: float
    examples: int


@dataclass(frozen=True, slots=True)
class SampleAnswered:
    """The model has answered a holdout record while it is trained, for whoever wants to see how it does.

    Attributes:
        step: The step that it answered after, from 1.
        steps: How many there will be.
        question: What the record asks.
        expected: What it answers.
        answer: What the model answered, cut off after some tokens.
        where: The record's file and line.
    """

    step: int
    steps: int
    question: str
    expected: str
    answer: str
    where: str


@dataclass(frozen=True, slots=True)
class PassFinished:
    """A step of several forward passes has come a little further.

    Attributes:
        step: The step's number, from 1.
        steps: How many there will be.
        done: How many of its passes are done.
        total: How many it has.
    """

    step: int
    steps: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know, and that is no error."""

    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan has chosen keys of the recipe's `training` that it leaves out.

    Attributes:
        values: What it chose, by key.
    """

    values: Mapping[str, Any]


Event = (
    Chosen
    | StageStarted
    | StageFinished
    | Progress
    | PassFinished
    | StepFinished
    | HoldoutMeasured
    | SampleAnswered
    | Notice
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listens to nothing: what happens is told to nobody."""
