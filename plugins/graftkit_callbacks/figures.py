"""What steps and evaluations say, as numbers by name: the same names for every program that is told."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit import EvaluationInfo, StepInfo

__all__ = ["LOSSES", "of_evaluation", "of_step"]

LOSSES = ("train/loss", "eval/loss", "holdout/loss")
"""The names of losses, one of which each step and each evaluation has."""


def of_step(step: StepInfo) -> Mapping[str, float]:
    """Returns a step's numbers.

    Returns:
        `train/loss`, `train/learning_rate`, `train/gradient_norm`, `train/tokens_per_second`, and what else the
        objective tells, as `train/NAME`.
    """
    return {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/gradient_norm": step.gradient_norm,
        "train/tokens_per_second": step.tokens / step.seconds if step.seconds else 0.0,
        **{f"train/{name}": value for name, value in step.metrics.items()},
    }


def of_evaluation(evaluation: EvaluationInfo) -> Mapping[str, float]:
    """Returns an evaluation's numbers.

    Returns:
        `eval/loss` and `eval/NAME` of one while the model is trained, which may be of a sample; of those before and
        after, which are of all holdout records, `holdout/loss`, `holdout/bits_per_byte`, `holdout/NAME`. Nothing of a
        base model with another vocabulary, whose losses compare with no other.
    """
    if evaluation.when == "base":
        return {}
    kind = "eval" if evaluation.when == "training" else "holdout"
    numbers = {"loss": evaluation.holdout_loss, **evaluation.metrics, **evaluation.scores}
    if evaluation.bits_per_byte is not None:
        numbers["bits_per_byte"] = evaluation.bits_per_byte
    return {f"{kind}/{name}": value for name, value in numbers.items()}
