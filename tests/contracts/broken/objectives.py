"""Objectives that break one promise each and keep the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from graftkit import Scores, SequenceScores
from graftkit.interfaces.scores import LABEL
from graftkit_objectives.classification import Classification
from graftkit_objectives.config import (
    ClassificationConfig,
    DistillConfig,
    DpoConfig,
    GrpoConfig,
    MultiLabelConfig,
    OrpoConfig,
    SftConfig,
)
from graftkit_objectives.distill import Distill
from graftkit_objectives.dpo import Dpo
from graftkit_objectives.grpo import Grpo
from graftkit_objectives.multi_label import MultiLabelClassification
from graftkit_objectives.orpo import Orpo
from graftkit_objectives.sft import Sft


class _Odds(Orpo):
    config_class = OrpoConfig


class TakesTheMeanItself(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        return super().losses(scores).mean()


class IsInfinite(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        means = scores.means()
        return -(means - torch.log(1 - means.exp()))[:, 0]


class LearnsNothing(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        return super().losses(scores).detach()


class ClimbsUp(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        losses = super().losses(scores)
        return losses.detach() * 2 - losses


class LooksAtItsNeighbours(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        losses = super().losses(scores)
        return losses + losses.mean().detach()


class CountsFromTheFirst(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        losses = super().losses(scores)
        return losses * torch.arange(1, len(losses) + 1) if len(losses) > 1 else losses


class IsNoLikelihood(Sft):
    config_class = SftConfig

    def losses(self, scores: Scores) -> torch.Tensor:
        return super().losses(scores) * 2


class TellsTheMean(_Odds):
    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        return {name: values.mean() for name, values in super().metrics(scores).items()}


class ChangesTheScores(_Odds):
    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        scores.weights.mul_(0.5)
        return super().metrics(scores)


class DrawsNoise(_Odds):
    def losses(self, scores: Scores) -> torch.Tensor:
        losses = super().losses(scores)
        return losses + 0.01 * torch.rand_like(losses)


class WithoutReference(DpoConfig):
    uses_reference: ClassVar[bool] = False


class NeverAsksForTheReference(Dpo):
    config_class = WithoutReference


class TakesMeansOfTokens(Distill):
    config_class = DistillConfig

    def losses(self, scores: Scores) -> torch.Tensor:
        return super().losses(scores) / scores.counts().sum(1)


class NegativeWeights(ClassificationConfig):
    def for_records(self, counts: Mapping[str, float], records: float) -> Self:
        return self.model_copy(update={"class_weights": dict.fromkeys(counts, -1.0)})


class WeighsByNegativeNumbers(Classification):
    config_class = NegativeWeights


class WeighsTheFirstLabel(ClassificationConfig):
    @property
    def label_weights(self) -> Mapping[str, float]:
        return {"first": 2.0}


class WeighsTwice(Classification):
    config_class = WeighsTheFirstLabel

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        losses, weights = super().losses(scores), scores.label_weights
        return losses if weights is None else losses * weights[scores.by_example[LABEL].long()]


class WeighsTheFirstLabelAlone(MultiLabelConfig):
    @property
    def label_weights(self) -> Mapping[str, float]:
        return {"first": 2.0}


class LeavesWeightsOut(MultiLabelClassification):
    config_class = WeighsTheFirstLabelAlone

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        return super().losses(SequenceScores(scores.values, scores.by_example))


class PrefersTheWorst(Grpo):
    config_class = GrpoConfig

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        return -super().advantages(rewards)


class LearnsTheWorst(Grpo):
    config_class = GrpoConfig

    def losses(self, scores: Scores) -> torch.Tensor:
        return -super().losses(scores)
