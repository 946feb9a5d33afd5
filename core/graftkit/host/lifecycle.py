"""The objects that lifecycle hooks are given. Fields may be added; none is renamed within an API version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graftkit.host.frozen import frozen

__all__ = [
    "CheckpointInfo",
    "EvaluationInfo",
    "EvaluationMoment",
    "ExportInfo",
    "RunInfo",
    "RunStatus",
    "StageInfo",
    "StepInfo",
]

RunStatus = Literal["running", "finished", "failed", "interrupted"]
EvaluationMoment = Literal["base", "before", "training", "after"]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that a hook is called in.

    Attributes:
        folder: The run's folder, an absolute path.
        recipe: The recipe as resolved, as JSON: a copy whose dicts and lists refuse to be changed.
        status: How the run stands at this moment.
        id: What no other run is called, 32 hexadecimal digits; one that is resumed keeps it.
        error: Why it failed or was stopped, as the manifest says it: `kind`, `message`, `where` and `hint`, secrets
            hidden; None where it did not.
        metrics: What was measured so far, as the manifest has it, by moment: "base", "before" and "after"; a copy
            that refuses to be changed.
    """

    folder: Path
    recipe: Mapping[str, Any]
    status: RunStatus = "running"
    id: str = ""
    error: Mapping[str, str] | None = None
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())
        for name in ("recipe", "error", "metrics"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


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


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint that is on the disk.

    Attributes:
        step: After how many steps.
        folder: Where it lies, an absolute path, until newer ones take its place (`training.keep_checkpoints`).
    """

    step: int
    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())


@dataclass(frozen=True, slots=True)
class EvaluationInfo:
    """What the holdout records said of the model.

    Attributes:
        when: "base" is the base model with its own vocabulary, where the run gives it another; "before" and "after"
            are those around training, over all holdout records; "training" those of `evaluation.every`.
        step: After how many steps.
        holdout_loss: Mean negative log-likelihood of a token in the loss, in nats, or what the objective minimizes.
        bits_per_byte: The same in bits, of a byte of the text in the loss; None where it was not computed.
        answers: How many answers were compared.
        scores: Their mean score by each metric.
        metrics: What else the objective tells, by name.
    """

    when: EvaluationMoment
    step: int
    holdout_loss: float
    bits_per_byte: float | None = None
    answers: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scores", "metrics"):
            object.__setattr__(self, name, frozen(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """An export that is written, and proved unless the recipe puts that off.

    Attributes:
        name: Its name in the run, that of its folder.
        format: What the recipe calls its exporter, such as "merged".
        folder: Where it lies, an absolute path.
        proof: What its proof says, as JSON, `proof["status"]` among it, which is "not yet" where it is put off: a copy
            that refuses to be changed.
    """

    name: str
    format: str
    folder: Path
    proof: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())
        object.__setattr__(self, "proof", frozen(self.proof))
