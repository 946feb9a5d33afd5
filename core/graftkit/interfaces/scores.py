"""What an objective's losses are computed of: what core made of the examples of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = [
    "ADVANTAGE",
    "LABEL",
    "LABELS",
    "MEAN_TOKENS",
    "SCORE",
    "Embeddings",
    "Scores",
    "SequenceScores",
    "TokenScores",
    "VectorPairs",
]

LABEL = "label"
"""The number by example that says which of the labels a text has, from 0."""

LABELS = "labels"
"""The row by example that says of each label whether a text has it, 1 or 0, `[labels]`."""

SCORE = "score"
"""The number by example that a text has."""

ADVANTAGE = "advantage"
"""The number by example that says how much better a sampled answer is than others to the same prompt, below 0 how much
worse."""

MEAN_TOKENS = "mean_tokens"
"""The number by example that says how many tokens in the loss the sampled answers of its step have on average, the same
for all. Answers that are masked have none (`SampledConfig.mask_truncated_completions`)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of the tokens in the loss of some examples.

    An example has one sequence of tokens, or several: of a pair the chosen answer and the rejected one; of a labelled
    answer itself and the answer of another record to the same prompt, from which KTO estimates a divergence. Every
    example of a run has equally many.

    Attributes:
        logps: The log-probability of each token in the loss, given those before it, in nats, `[tokens]`, float32. A
            gradient by it becomes one by the model's parameters.
        weights: Each token's weight in the loss, `[tokens]`, float32; 1 unless the records say otherwise.
        sequence: The number of the sequence that each token is of, `[tokens]`, int64, ascending; the sequences of an
            example have neighbouring numbers.
        sequences: How many sequences each example has.
        examples: How many examples there are.
        reference: `logps` of the model as training starts, `[tokens]`, float32; None where the objective's config does
            not ask for it (`uses_reference`, of sampled answers `compares_with_start`).
        old: `logps` of the model that sampled the answers, `[tokens]`, float32; None where several steps do not learn
            from the same answers (`SampledConfig.num_iterations`): it is the model itself then.
        candidates: The model's own log-probability of each of the teacher's likeliest tokens in a token's place, after
            its logits were divided by the temperature, `[tokens, top_k]`, float32. A gradient by it becomes one by the
            model's parameters, as by `logps`. None where the objective's config is no `TeacherConfig`.
        teacher: The teacher's log-probabilities of the same tokens, divided likewise, `[tokens, top_k]`, float32, in
            descending order. It has fewer columns where the vocabulary has fewer tokens.
        by_example: The examples' further numbers by name, `[examples]` each: `wanted`, 1 or 0, of labelled answers;
            `advantage` and `mean_tokens` of sampled ones.
    """

    logps: torch.Tensor
    weights: torch.Tensor
    sequence: torch.Tensor
    sequences: int
    examples: int
    reference: torch.Tensor | None = None
    old: torch.Tensor | None = None
    candidates: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    by_example: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def sums(self) -> torch.Tensor:
        """Returns the log-probability of each sequence's tokens in the loss, `[examples, sequences]`."""
        return self.summed(self.logps)

    def summed(self, by_token: torch.Tensor) -> torch.Tensor:
        """Returns the sum over each sequence of what its tokens have, times their weights, `[examples, sequences]`.

        Args:
            by_token: A number of each token, `[tokens]`.
        """
        return self._summed(by_token * self.weights)

    def reference_sums(self) -> torch.Tensor:
        """Returns the same of the model as training starts, `[examples, sequences]`.

        Raises:
            ValueError: The objective's config doesn't say that it uses the reference.
        """
        if self.reference is None:
            raise ValueError("there are no reference scores: the objective's config must say uses_reference = True")
        return self.summed(self.reference)

    def counts(self) -> torch.Tensor:
        """Returns the sum of the weights of each sequence's tokens in the loss, `[examples, sequences]`."""
        return self._summed(self.weights)

    def means(self) -> torch.Tensor:
        """Returns the mean log-probability of a token of each sequence, `[examples, sequences]`."""
        return self.sums() / self.counts()

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        found = values.new_zeros(self.examples * self.sequences).index_add(0, self.sequence, values)
        return found.view(self.examples, self.sequences)


@dataclass(frozen=True, slots=True)
class SequenceScores:
    """What a head gives the sequences of some examples.

    Attributes:
        values: `[examples, sequences, outputs]`, float32: of a text with labels one sequence and an output a label; of
            a text with a number one output; of a pair the chosen answer and the rejected one, with one output each. A
            gradient by it becomes one by the parameters of the head and the adapter.
        by_example: The examples' further numbers by name, `[examples]` or `[examples, n]` each: `label`, the number of
            a text's label; `labels`, `[examples, labels]`, 1 where it has one; `score`, its number.
        label_weights: What the losses of each label are multiplied by where a text has it, `[labels]`, float32; None
            where all weigh alike. See `AnyObjectiveConfig.label_weights`.
    """

    values: torch.Tensor
    by_example: Mapping[str, torch.Tensor] = field(default_factory=dict)
    label_weights: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a head gives the tokens of some examples that are in the loss: the first of each word.

    Attributes:
        values: `[tokens, outputs]`, float32, an output a tag. A gradient by it becomes one by the parameters of the
            head and the adapter.
        tags: The number of each token's tag, `[tokens]`, int64.
        example: The number of the example that each token is of, `[tokens]`, int64, ascending.
        examples: How many examples there are.
        labels: The tags in the order of their numbers.
        by_example: The examples' further numbers by name, `[examples]` or `[examples, n]` each.
        label_weights: What the loss of a token with each tag is multiplied by, `[labels]`, float32; None where all
            weigh alike. See `AnyObjectiveConfig.label_weights`.
    """

    values: torch.Tensor
    tags: torch.Tensor
    example: torch.Tensor
    examples: int
    labels: Sequence[str]
    by_example: Mapping[str, torch.Tensor] = field(default_factory=dict)
    label_weights: torch.Tensor | None = None

    def summed(self, by_token: torch.Tensor) -> torch.Tensor:
        """Returns the sum over each example of what its tokens have, `[examples]` or `[examples, n]`.

        Args:
            by_token: A number of each token, `[tokens]`, or a row, `[tokens, n]`.
        """
        return by_token.new_zeros(self.examples, *by_token.shape[1:]).index_add(0, self.example, by_token)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of queries, and of the documents that are compared with them.

    Attributes:
        queries: `[examples, hidden]`, float32, each of the length 1. A gradient by it becomes one by the parameters of
            the adapter.
        documents: `[documents, hidden]`, likewise: those that are to be found by the queries of a step, or of all
            holdout records, and their negatives.
        positive: The number of the document that is to be found by each query, `[examples]`, int64.
        compared: Which documents count for which query, `[examples, documents]`: all but those that may be as right as
            its own, since they are the same text, or to be found by the same query, or are the query itself.
    """

    queries: torch.Tensor
    documents: torch.Tensor
    positive: torch.Tensor
    compared: torch.Tensor


@dataclass(frozen=True, slots=True)
class VectorPairs:
    """Vectors of the two texts of pairs.

    Attributes:
        first: `[examples, hidden]`, float32, each of the length 1. A gradient by it becomes one by the parameters of
            the adapter.
        second: `[examples, hidden]`, likewise.
        by_example: The examples' further numbers by name, `[examples]` each: `score`, the number of the pair.
    """

    first: torch.Tensor
    second: torch.Tensor
    by_example: Mapping[str, torch.Tensor]
