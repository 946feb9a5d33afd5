"""What training minimizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graftkit.interfaces.scores import Embeddings, Scores, SequenceScores, TokenScores, VectorPairs

if TYPE_CHECKING:
    import torch

__all__ = [
    "SAMPLED_METRICS",
    "EmbeddingObjective",
    "Objective",
    "Overall",
    "SampledObjective",
    "SequenceObjective",
    "SimilarityObjective",
    "TokenObjective",
]

SAMPLED_METRICS = ("reward", "reward_std", "same_reward", "answer_tokens", "cut_off")
"""What is told of sampled answers, beside the mean score of each metric: no metric has such a name."""


class SimilarityObjective(Protocol):
    """What training minimizes of vectors, where its config is a `SimilarityConfig`."""

    def losses(self, pairs: VectorPairs) -> torch.Tensor:
        """Returns the loss of each pair, `[examples]`, float32. A step minimizes their mean.

        Given are all pairs of a step, or all holdout records.
        """

    def metrics(self, pairs: VectorPairs) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the pairs, as `Objective.metrics` does."""


class EmbeddingObjective(Protocol):
    """What training minimizes of vectors, where its config is a `RetrievalConfig`."""

    def losses(self, embeddings: Embeddings) -> torch.Tensor:
        """Returns the loss of each query, `[examples]`, float32. A step minimizes their mean.

        It depends on the query itself and the documents alone: of holdout records some are asked at a time.
        """

    def metrics(self, embeddings: Embeddings) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the queries, as `Objective.metrics` does."""


class TokenObjective(Protocol):
    """What training minimizes of scores of tokens, where its config is a `TokenConfig`."""

    def losses(self, scores: TokenScores) -> torch.Tensor:
        """Returns the sum of the losses of each example's tokens, `[examples]`, float32.

        A step minimizes the mean over its tokens: core divides the sum over all examples by their tokens, or, where
        tags weigh otherwise, by the sum of their tokens' weights.
        """

    def metrics(self, scores: TokenScores) -> Mapping[str, torch.Tensor]:
        """Returns what else is told, by name: sums over each example's tokens, `[examples]` each, without weights."""


class SequenceObjective(Protocol):
    """What training minimizes of scores of whole sequences, where its config is a `SequenceConfig`."""

    def losses(self, scores: SequenceScores) -> torch.Tensor:
        """Returns the loss of each example, `[examples]`, float32.

        A step minimizes their mean: core divides their sum by their number, or, where labels weigh otherwise and each
        text has one, by the sum of the texts' weights.
        """

    def metrics(self, scores: SequenceScores) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the examples, as `Objective.metrics` does."""


@runtime_checkable
class Overall(Protocol):
    """What an objective of a head's scores, or of vectors, may have besides: figures that are no means, as an F1."""

    def kept(self, scores: Any) -> Mapping[str, torch.Tensor]:
        """Returns what the figures follow from, by name: numbers of each example, `[examples]` or `[examples, ...]`.

        That is kept of every holdout record until all are scored, and sent where several processes score them: such as
        how many entities of a text were found, and not the scores of its tokens.

        Args:
            scores: Those of some records, without a gradient: `SequenceScores`, `TokenScores`, `Embeddings` or
                `VectorPairs`.
        """

    def overall(self, kept: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """Returns figures of all holdout records together, by name; a name of `metrics` takes that one's place.

        Args:
            kept: What `kept` gave of all records, on the CPU, int64 or float64.

        Returns:
            Each a number; NaN where the records say nothing of it, and it is not told.
        """


class Objective(Protocol):
    """What training minimizes, where its config is an `ObjectiveConfig` or a `MaskedConfig`: `Class(config)`.

    Core computes log-probabilities, and their gradients by the parameters, a piece of the logits at a time; an
    objective sees numbers a token and returns one an example.
    """

    def losses(self, scores: Scores) -> torch.Tensor:
        """Returns the loss of each example, `[examples]`, float32. A step minimizes their mean, or that of its tokens.

        Args:
            scores: The examples' log-probabilities; what is computed from `scores.logps` and `scores.candidates` must
                be differentiable.
        """

    def metrics(self, scores: Scores) -> Mapping[str, torch.Tensor]:
        """Returns what else is told of the examples, by name, `[examples]` each, of which core takes the mean.

        They are sums over tokens where the losses are (`Minimizes`). Else NaN leaves an example out of a
        mean, as that of the reward of wanted answers leaves out unwanted ones.
        """


class SampledObjective(Objective, Protocol):
    """What training minimizes by answers that the model samples, where its config is a `SampledConfig`.

    What its `metrics` give is told of a step, as the mean over the answers with an advantage, beside what core tells of
    all (`SAMPLED_METRICS`), whose names it can't have.
    """

    def advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Returns how much better each answer is than the others, `[prompts, group_size]`; 0 learns nothing.

        They are learnt from in float32, and may be given in double precision.

        Args:
            rewards: What the answers of a step are worth, `[prompts, group_size]`, float64: what they differ by may be
                small beside what they are.
        """
