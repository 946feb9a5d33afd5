"""The objectives' own recipe fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from graftkit import (
    EmbeddingConfig,
    MaskedConfig,
    ObjectiveConfig,
    RetrievalConfig,
    SampledConfig,
    SequenceConfig,
    SimilarityConfig,
    TeacherConfig,
    TokenConfig,
)
from graftkit.interfaces.objective_config import AnyObjectiveConfig
from pydantic import Field, WithJsonSchema, field_validator, model_validator

__all__ = [
    "ClassificationConfig",
    "DistillConfig",
    "DpoConfig",
    "EmbeddingObjectiveConfig",
    "GrpoConfig",
    "KtoConfig",
    "MaskedLmConfig",
    "MultiLabelConfig",
    "OrpoConfig",
    "RegressionConfig",
    "RewardConfig",
    "SftConfig",
    "SimilarityObjectiveConfig",
    "SimpoConfig",
    "TokenClassificationConfig",
]


NllWeight = Annotated[
    float,
    Field(ge=0, le=100, description="how much the mean negative log-likelihood of a chosen token counts besides"),
]


class SftConfig(ObjectiveConfig):
    """Fine-tuning has no fields."""

    minimizes: ClassVar[Literal["likelihood"]] = "likelihood"


class DistillConfig(TeacherConfig):
    """How near the model is brought to its teacher."""

    minimizes: ClassVar[Literal["tokens"]] = "tokens"

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

    learns_from: ClassVar[Literal["pairs"]] = "pairs"

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

    learns_from: ClassVar[Literal["pairs"]] = "pairs"

    beta: float = Field(default=0.1, gt=0, le=100, description="the weight of the odds ratio beside the likelihood")


class SimpoConfig(_PreferenceConfig):
    """How answers in pairs are compared, per token."""

    learns_from: ClassVar[Literal["pairs"]] = "pairs"

    beta: float = Field(default=2.0, gt=0, le=100, description="the scale of a token's mean log-probability")
    gamma: float = Field(default=1.0, ge=0, le=100, description="the margin by which the chosen answer is to be ahead")
    nll_weight: NllWeight = 0.0


class KtoConfig(_ReferenceConfig):
    """How wanted and unwanted answers are weighted."""

    learns_from: ClassVar[Literal["labelled"]] = "labelled"
    minimizes: ClassVar[Literal["step"]] = "step"

    wanted_weight: float = Field(default=1.0, gt=0, le=1000, description="the weight of wanted answers")
    unwanted_weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="the weight of unwanted ones; with counts it should give both kinds a ratio from 1:1 to 4:3",
    )


class GrpoConfig(SampledConfig):
    """How sampled answers are compared."""

    rate_scale: ClassVar[float] = 0.1

    loss: Literal["dapo", "grpo", "dr_grpo"] = Field(
        default="dapo",
        description="dapo: every token counts alike; grpo: every answer; dr_grpo: every token, whatever the length of "
        "the other answers",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="what differences of rewards are divided by: the standard deviation of the answers to a prompt, of "
        "all answers of a step, or nothing",
    )
    beta: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="how dear it is to move away from the model at the start: the weight of the divergence from it; "
        "with 0 it is not computed",
    )
    epsilon: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="how far below 1 a token's ratio, of its probability to that by the model that sampled it, may "
        "fall before nothing more is learnt of it",
    )
    epsilon_high: float | None = Field(
        default=None, ge=0, le=100, description="how far above 1 it may rise; as far as epsilon says when left out"
    )
    delta: float | None = Field(
        default=None,
        gt=1,
        le=1000,
        description="the most that a ratio counts, of answers with a negative advantage, too; no such bound when left "
        "out",
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        default="token",
        description="what ratios are of: of each token, or of an answer, the geometric mean of its tokens' (GSPO)",
    )

    @model_validator(mode="after")
    def _clips(self) -> Self:
        fields = ("epsilon", "epsilon_high", "delta", "importance_sampling_level")
        said = [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]
        if self.num_iterations == 1 and said:
            raise ValueError(
                f"{said[0]}: with num_iterations 1 the model learns from its own answers alone: every ratio is 1, and "
                "nothing is clipped; leave it out, or say more num_iterations"
            )
        return self

    @property
    def compares_with_start(self) -> bool:
        """Where that costs something."""
        return self.beta > 0


_MOST_WEIGHT = 1e6
_Weight = Annotated[float, WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": _MOST_WEIGHT})]
_ClassWeights = Literal["balanced"] | dict[str, _Weight] | None


class _LabelsConfig(AnyObjectiveConfig):
    """Of objectives that tell labels of a text, or of its words, which may count otherwise."""

    fewest: ClassVar[int] = 1
    """How many labels there must be."""

    labels: list[str] = Field(
        default=[],
        description="the labels in the order of their numbers; those of the records, sorted, when left out",
    )
    class_weights: _ClassWeights = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated is not None or 0 < len(labels) < cls.fewest:
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

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: Any) -> Any:
        for label, weight in weights.items() if isinstance(weights, dict) else ():
            if not 0 < weight <= _MOST_WEIGHT:
                raise ValueError(f"class_weights: {label[:60]!r} weighs {weight:g}, no number above 0, up to 1e6")
        return weights

    @property
    def label_weights(self) -> Mapping[str, float]:
        """Those of `class_weights`; none where they follow from records that are not known yet."""
        return self.class_weights if isinstance(self.class_weights, dict) else {}

    @property
    def awaits_records(self) -> bool:
        """Whether balanced weights are not yet numbers."""
        return self.class_weights == "balanced"

    def for_records(self, counts: Mapping[str, float], records: float) -> Self:
        """Returns the fields with the balanced weights as numbers.

        Raises:
            ValueError: A label is given a weight that no record has.
        """
        unknown = next((label for label in self.label_weights if label not in {*counts, *self.labels}), None)
        if unknown is not None:
            known = ", ".join(f"{label:.40}" for label in sorted(counts)[:6]) + (", ..." if len(counts) > 6 else "")
            raise ValueError(f"class_weights: no training record has the label {unknown[:60]!r}; they have {known}")
        if self.class_weights != "balanced":
            return self
        weights = {label: self._balanced(count, records, len(counts)) for label, count in sorted(counts.items())}
        return self.model_copy(update={"class_weights": weights})

    def _balanced(self, count: float, records: float, labels: int) -> float:
        """Returns the balanced weight of a label, as scikit-learn computes it where a record has one.

        Args:
            count: How many records have it, or how many words.
            records: How many there are.
            labels: How many labels they have between them.
        """
        return records / (labels * count)


class ClassificationConfig(_LabelsConfig, SequenceConfig):
    """Which labels there are, and how much texts of each count."""

    learns_from: ClassVar[Literal["labels"]] = "labels"
    fewest: ClassVar[int] = 2

    class_weights: _ClassWeights = Field(
        default=None,
        description="how much a text of each label counts in the loss, by label; 1 where a label is not named. "
        "balanced: training records / (labels * records with the label), as often as an epoch sees them",
    )


class MultiLabelConfig(_LabelsConfig, SequenceConfig):
    """Which labels there are, and how much each counts where a text has it."""

    learns_from: ClassVar[Literal["label_sets"]] = "label_sets"

    class_weights: _ClassWeights = Field(
        default=None,
        description="how much each label counts in the loss where a text has it, against 1 where it has not; 1 where a "
        "label is not named. balanced: training records without the label / those with it, as often as an epoch sees "
        "them",
    )

    def _balanced(self, count: float, records: float, labels: int) -> float:
        return (records - count) / count if count < records else 1.0


class TokenClassificationConfig(_LabelsConfig, TokenConfig):
    """Which tags there are, and how much words with each count."""

    fewest: ClassVar[int] = 2

    class_weights: _ClassWeights = Field(
        default=None,
        description="how much a word with each tag counts in the loss, by tag; 1 where a tag is not named. "
        "balanced: words of training records / (tags * words with the tag), as often as an epoch sees them",
    )


class RegressionConfig(SequenceConfig):
    """Regression has no fields."""

    learns_from: ClassVar[Literal["scores"]] = "scores"


class RewardConfig(SequenceConfig):
    """How far apart the rewards of answers in pairs are to be."""

    learns_from: ClassVar[Literal["pairs"]] = "pairs"

    margin: float = Field(
        default=0.0, ge=0, le=100, description="by how much the reward of the chosen answer is to be ahead"
    )
    center: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="the weight of the squared sum of a pair's rewards, which keeps their mean at 0",
    )


class MaskedLmConfig(MaskedConfig):
    """Masked language modeling has no fields of its own."""

    minimizes: ClassVar[Literal["likelihood"]] = "likelihood"


class _CosineConfig(EmbeddingConfig):
    """How sharply cosines are told apart, and which parts of a vector are to do for the whole."""

    temperature: float = Field(
        default=0.05, ge=0.001, le=10, description="what cosines are divided by: the lower, the sharper"
    )
    dimensions: list[Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        default=[],
        description="of how many of its first numbers a vector is to do as well as of all (Matryoshka), such as [256, "
        "64]",
    )

    @field_validator("dimensions")
    @classmethod
    def _differ(cls, dimensions: list[int]) -> list[int]:
        twice = next((width for at, width in enumerate(dimensions) if width in dimensions[:at]), None)
        if twice is not None:
            raise ValueError(f"dimensions: {twice} is there twice, and would be learnt twice")
        return dimensions

    def check_width(self, width: int) -> None:
        """Refuses parts that are no parts.

        Raises:
            ValueError: Some of `dimensions` is no less than the vectors' own.
        """
        whole = next((part for part in self.dimensions if part >= width), None)
        if whole is not None:
            told = f"dimensions: {whole:,} is no part of the model's vectors, which have {width:,} numbers"
            raise ValueError(f"{told} and are learnt as a whole anyway")


class EmbeddingObjectiveConfig(_CosineConfig, RetrievalConfig):
    """How documents are told apart by a query."""


class SimilarityObjectiveConfig(_CosineConfig, SimilarityConfig):
    """How pairs are told apart by their numbers."""
