"""The objectives' own recipe fields."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Literal, Self

from graftkit import ObjectiveConfig, TeacherConfig
from graftkit.interfaces.architecture import Head
from graftkit.interfaces.objective import LearnsFrom, MeanOf
from pydantic import Field, field_validator, model_validator

__all__ = [
    "ClassificationConfig",
    "DistillConfig",
    "DpoConfig",
    "KtoConfig",
    "MaskedLmConfig",
    "OrpoConfig",
    "RewardConfig",
    "SftConfig",
    "SimpoConfig",
]


NllWeight = Annotated[
    float,
    Field(ge=0, le=100, description="how much the mean negative log-likelihood of a chosen token counts besides"),
]


class SftConfig(ObjectiveConfig):
    """Fine-tuning has no fields."""

    likelihood: ClassVar[bool] = True


class DistillConfig(TeacherConfig):
    """How near the model is brought to its teacher."""

    mean_of: ClassVar[MeanOf] = "tokens"

    alpha: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the weight of the divergence from the teacher; that of the tokens' negative log-likelihood is "
        "1 - alpha",
    )
    beta: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="which divergence: 0 is KL(teacher || model), 1 KL(model || teacher), between them the generalized "
        "Jensen-Shannon divergence",
    )

    @field_validator("alpha")
    @classmethod
    def _compares(cls, alpha: float) -> float:
        if alpha == 0:
            raise ValueError("alpha: with 0 nothing is learnt from the teacher; say objective: sft")
        return alpha


class _PreferenceConfig(ObjectiveConfig):
    """Of every objective that compares answers."""

    rate_scale: ClassVar[float] = 0.1
    """A tenth of fine-tuning's: a comparison goes on moving a model that has learnt it."""


class _ReferenceConfig(_PreferenceConfig):
    """Of those that compare with the model at the start."""

    uses_reference: ClassVar[bool] = True

    beta: float = Field(
        default=0.1, gt=0, le=100, description="how dear it is to move away from the model at the start"
    )


class DpoConfig(_ReferenceConfig):
    """How answers in pairs are compared."""

    learns_from: ClassVar[LearnsFrom] = "pairs"

    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field(
        default="sigmoid", description="sigmoid is DPO's own; ipo, hinge and robust are its variants"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="the share of pairs whose order is taken to be wrong: sigmoid and robust"
    )
    nll_weight: NllWeight = 0.0

    @model_validator(mode="after")
    def _smooths(self) -> Self:
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            raise ValueError(f"label_smoothing: the loss {self.loss} has none; leave it out")
        return self


class OrpoConfig(_PreferenceConfig):
    """How the odds of answers in pairs are weighted."""

    learns_from: ClassVar[LearnsFrom] = "pairs"

    beta: float = Field(default=0.1, gt=0, le=100, description="the weight of the odds ratio beside the likelihood")


class SimpoConfig(_PreferenceConfig):
    """How answers in pairs are compared, per token."""

    learns_from: ClassVar[LearnsFrom] = "pairs"

    beta: float = Field(default=2.0, gt=0, le=100, description="the scale of a token's mean log-probability")
    gamma: float = Field(default=1.0, ge=0, le=100, description="the margin by which the chosen answer is to be ahead")
    nll_weight: NllWeight = 0.0


class KtoConfig(_ReferenceConfig):
    """How wanted and unwanted answers are weighted."""

    learns_from: ClassVar[LearnsFrom] = "labelled"
    by_example: ClassVar[bool] = False

    wanted_weight: float = Field(default=1.0, gt=0, le=1000, description="the weight of wanted answers")
    unwanted_weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="the weight of unwanted ones; with counts it should give both kinds a ratio from 1:1 to 4:3",
    )


class ClassificationConfig(ObjectiveConfig):
    """Which labels there are."""

    head: ClassVar[Head] = "sequence"
    learns_from: ClassVar[LearnsFrom] = "labels"

    labels: list[str] = Field(
        default=[],
        description="the labels in the order of their numbers; those of the records, sorted, when left out",
    )

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated is not None or len(labels) == 1:
            told = f"'{repeated}' is there twice" if repeated is not None else "there must be two at least"
            raise ValueError(f"labels: {told}")
        return labels

    def label_order(self, found: Collection[str]) -> Sequence[str]:
        """Returns the recipe's labels, or those of the records, sorted.

        Raises:
            ValueError: Records have a label that the recipe doesn't list.
        """
        unknown = sorted(set(found) - set(self.labels)) if self.labels else []
        if unknown:
            raise ValueError(f"records have the label {unknown[0][:60]!r}, which `labels` doesn't list")
        return self.labels or sorted(found)


class RewardConfig(ObjectiveConfig):
    """How far apart the rewards of answers in pairs are to be."""

    head: ClassVar[Head] = "sequence"
    learns_from: ClassVar[LearnsFrom] = "pairs"

    margin: float = Field(
        default=0.0, ge=0, le=100, description="by how much the reward of the chosen answer is to be ahead"
    )
    center: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="the weight of the squared sum of a pair's rewards, which keeps their mean at 0",
    )


class MaskedLmConfig(ObjectiveConfig):
    """How many tokens are masked."""

    head: ClassVar[Head] = "masked"
    learns_from: ClassVar[LearnsFrom] = "texts"
    likelihood: ClassVar[bool] = True

    probability: float = Field(
        default=0.15, gt=0, lt=1, description="the share of tokens that are to be found out from the others"
    )

    @property
    def masked_share(self) -> float:
        """The recipe's."""
        return self.probability
