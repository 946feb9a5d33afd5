"""What a run says of its stages, its steps and its evaluations."""

from __future__ import annotations

from graftkit.report.run_manifest.facts import Facts

__all__ = [
    "ExportedStep",
    "Measurement",
    "StageFacts",
    "StepFailure",
]


class StageFacts(Facts):
    """A stage that is over; what it found out stands beside its name and how many seconds it took."""

    name: str
    seconds: float


class Measurement(Facts):
    """What the holdout examples said of the model.

    Attributes:
        holdout_loss: Mean negative log-likelihood of a token in the loss, in nats, or what the objective minimizes.
        bits_per_byte: The same in bits, of a byte of the text in the loss; None where it minimizes something else.
        scores: The mean score of the answers by each metric; empty where no answer was asked for.
        answers: How many answers were compared.
        metrics: What else the objective tells, by name.
    """

    holdout_loss: float
    bits_per_byte: float | None = None
    scores: dict[str, float] = {}
    answers: int = 0
    metrics: dict[str, float] = {}


class ExportedStep(Facts):
    """The step whose weights are evaluated after training and exported.

    Attributes:
        step: Its number.
        taken: How many steps were taken.
        planned: How many the recipe makes.
        reason: Why it is this one.
        stopped_early: Why fewer steps were taken than planned; empty where none fewer were.
    """

    step: int
    taken: int
    planned: int
    reason: str
    stopped_early: str = ""


class StepFailure(Facts):
    """A step that was not taken, since its loss had gone wrong.

    Attributes:
        step: The step's number.
        reason: What is wrong with its loss.
        good: The last step that nothing speaks against.
        records: Where each of its records stands: file and line.
        back_to: The last step from which the run that goes on may start, where it trains otherwise; else None.
    """

    step: int
    reason: str
    good: int
    records: list[str] = []
    back_to: int | None = None
