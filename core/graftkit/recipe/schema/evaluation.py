"""What is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from graftkit.interfaces.config import MOST_COUNTED, StrictModel
from graftkit.recipe.schema.providers import MetricSection
from graftkit.recipe.schema.short_forms import name_alone, one_alone

__all__ = [
    "EvaluationSection",
]


class EvaluationSection(StrictModel):
    """What is measured before and after training, besides the holdout loss; and while it goes on."""

    every: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="steps between evaluations of the holdout loss while the model is trained, and one after the last "
        "step; none when left out",
    )
    sample: Annotated[int, Field(ge=1, le=MOST_COUNTED)] | Literal["all"] = Field(
        default=256, description="how many holdout examples those evaluate at most, drawn by the seed; or all"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="training stops early after so many of those evaluations in a row without a lower loss",
    )
    min_delta: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="patience begins anew where a loss is lower by more than this than where it last began",
    )
    exported: Literal["best", "last"] | None = Field(
        default=None,
        description="which step's weights are evaluated at the end and exported: best, that of the lowest of those "
        "losses, or last; best where patience is said, else last, when left out",
    )
    answers: int = Field(
        default=0,
        ge=0,
        le=MOST_COUNTED,
        description="holdout records to answer by greedy generation, before and after training",
    )
    metrics: Annotated[list[Annotated[MetricSection, BeforeValidator(name_alone)]], BeforeValidator(one_alone)] = Field(
        default=[MetricSection(use="exact-match")],
        min_length=1,
        description="what those answers are compared with the expected ones by, each a metric; the first one says "
        "which are shown as right",
    )
    max_new_tokens: int = Field(default=128, ge=1, le=1_000_000, description="tokens of a generated answer at most")
    batch_size: int = Field(default=64, ge=1, le=1_000_000, description="answers generated side by side")

    @property
    def exports_best(self) -> bool:
        """Whether the step with the lowest holdout loss is exported, not the last one."""
        return self.exported == "best" or (self.exported is None and self.patience is not None)

    @field_validator("metrics")
    @classmethod
    def _each_name_once(cls, metrics: list[MetricSection]) -> list[MetricSection]:
        labels = [metric.label for metric in metrics]
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated:
            raise ValueError(f"evaluation.metrics: two are called '{repeated}': give one a name of its own")
        return metrics

    @model_validator(mode="after")
    def _evaluated(self) -> EvaluationSection:
        wanting = next((key for key in ("patience", "exported") if getattr(self, key) not in (None, "last")), None)
        if self.every is None and wanting:
            raise ValueError(f"evaluation.{wanting} goes by evaluations while the model is trained: say every, too")
        return self
