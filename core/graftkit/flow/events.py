"""What a run tells while it goes on. `run(on_event=...)` receives these objects, in order, in the run's thread.

All of them are frozen, can be pickled, and have `to_json()`. Fields may be added; none is renamed within a version of
the plugin API.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from graftkit.host.lifecycle import StepInfo

__all__ = [
    "Chosen",
    "Event",
    "HoldoutMeasured",
    "Notice",
    "OnEvent",
    "PassFinished",
    "Planned",
    "Progress",
    "RunFailed",
    "RunFinished",
    "SampleAnswered",
    "StageFinished",
    "StageStarted",
    "StepFinished",
    "ignore",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What every event has.

    Attributes:
        time: When it happened, in seconds since 1970.
        run: The run's id, as its manifest has it; empty where it is of no run.
    """

    time: float = field(default_factory=time.time, compare=False)
    run: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON: the class's name as `event`, the stage that it belongs to, and its fields."""
        stage = getattr(self, "stage", "")
        return {"event": type(self).__name__, "time": self.time, "run": self.run, "stage": stage} | asdict(self)


@dataclass(frozen=True, slots=True)
class StageStarted(Told):
    """A stage begins."""

    stage: str


@dataclass(frozen=True, slots=True)
class StageFinished(Told):
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
class Progress(Told):
    """Something long has come a little further.

    Attributes:
        stage: The stage.
        what: What is counted: "tensors", "records", "tokens".
        done: How many are done.
        total: How many there are.
        seconds_left: How long the rest takes at the speed so far; None before anything is done.
    """

    stage: str
    what: str
    done: int
    total: int
    seconds_left: float | None = field(default=None, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class StepFinished(Told):
    """The optimizer has taken a step.

    Attributes:
        step: The step.
        seconds_left: How long the steps still to come take at the speed so far.
    """

    stage: ClassVar[str] = "training"
    step: StepInfo
    seconds_left: float | None = field(default=None, kw_only=True, compare=False)


@dataclass(frozen=True, slots=True)
class HoldoutMeasured(Told):
    """The model has been evaluated on holdout examples while it is trained.

    Attributes:
        step: The step that it was evaluated after, from 1.
        steps: How many there will be.
        loss: Mean negative log-likelihood of a token in the loss, in nats.
        examples: How many holdout examples that is of.
    """

    stage: ClassVar[str] = "training"
    step: int
    steps: int
    loss: float
    examples: int


@dataclass(frozen=True, slots=True)
class SampleAnswered(Told):
    """The model has answered a holdout record while it is trained, for whoever wants to see how it does.

    Attributes:
        step: The step that it answered after, from 1.
        steps: How many there will be.
        question: What the record asks.
        expected: What it answers.
        answer: What the model answered, cut off after some tokens.
        where: The record's file and line.
    """

    stage: ClassVar[str] = "training"
    step: int
    steps: int
    question: str
    expected: str
    answer: str
    where: str


@dataclass(frozen=True, slots=True)
class PassFinished(Told):
    """A step of several forward passes has come a little further.

    Attributes:
        step: The step's number, from 1.
        steps: How many there will be.
        done: How many of its passes are done.
        total: How many it has.
    """

    stage: ClassVar[str] = "training"
    step: int
    steps: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Notice(Told):
    """Something that the user should know, and that is no error."""

    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class Chosen(Told):
    """The plan has chosen keys of the recipe's `training` that it leaves out.

    Attributes:
        values: What it chose, by key.
    """

    stage: ClassVar[str] = "plan"
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Planned(Told):
    """Recipe, files and records are checked, and the run's folder is its own.

    Attributes:
        plan: What it is going to do, as `graftkit.plan(recipe).to_json()` says it.
    """

    stage: ClassVar[str] = "plan"
    plan: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFinished(Told):
    """The run has finished; nothing comes after this.

    Attributes:
        folder: Its folder.
        manifest: What its manifest.json says.
    """

    folder: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunFailed(Told):
    """The run failed or was stopped, which is raised next; nothing comes after this.

    Attributes:
        folder: Its folder.
        error: What is raised: its `code`, `message`, `where` and `hint`; see `graftkit.errors`.
    """

    folder: str
    error: Mapping[str, Any]


Event = (
    Planned
    | Chosen
    | StageStarted
    | StageFinished
    | Progress
    | PassFinished
    | StepFinished
    | HoldoutMeasured
    | SampleAnswered
    | Notice
    | RunFinished
    | RunFailed
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listens to nothing: what happens is told to nobody."""
