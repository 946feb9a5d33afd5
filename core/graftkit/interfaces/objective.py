"""What training minimizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, field_validator

from graftkit.interfaces.architecture import Head, PooledBy
from graftkit.interfaces.config import ProviderConfig

if TYPE_CHECKING:
    import torch

__all__ = [
    "ADVANTAGE",
    "LABEL",
    "LABELS",
    "MEAN_TOKENS",
    "SAMPLED_METRICS",
    "SCORE",
    "AnyObjectiveConfig",
    "EmbeddingConfig",
    "EmbeddingObjective",
    "Embeddings",
    "LearnsFrom",
    "MaskedConfig",
    "Minimizes",
    "Objective",
    "ObjectiveConfig",
    "Overall",
    "RetrievalConfig",
    "SampledConfig",
    "SampledObjective",
    "Scores",
    "SequenceConfig",
    "SequenceObjective",
    "SequenceScores",
    "SimilarityConfig",
    "SimilarityObjective",
    "TeacherConfig",
    "TokenConfig",
    "TokenObjective",
    "TokenScores",
    "VectorPairs",
]

LearnsFrom = Literal[
    "answers",
    "prompts",
    "pairs",
    "labelled",
    "labels",
    "label_sets",
    "scores",
    "scored_pairs",
    "tags",
    "texts",
    "similar",
]
"""Which records an objective learns from: `answers`, any that shows what is to be said; `prompts`, those with something
that is answered; `pairs` of a chosen and a rejected answer; `labelled` answers, each wanted or not; `labels`, texts
each with one of a few labels; `label_sets`, texts each with any number of them; `scores`, texts each with a number, or
pairs of them; `scored_pairs`, these pairs alone, of which each text is seen by itself; `tags`, texts with a tag of each
word; `texts`, plain ones alone; `similar`, texts each with others that are to be found by it."""

Minimizes = Literal["likelihood", "tokens", "examples", "step"]
"""What training minimizes of a step. `likelihood`: the mean negative log-likelihood of its tokens, which core computes
in one pass; `losses` is not asked. `tokens`: the mean over its tokens; losses and metrics are sums over an example's
tokens in the loss, each times its weight, and core divides their sum by that of all weights. `examples`: the mean over
its examples, the loss of each of which depends on its own scores alone. `step`: the same mean, where a loss depends on
the step's other examples, too; all are scored before the first gradient is computed, at the price of another forward
pass."""

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

SAMPLED_METRICS = ("reward", "reward_std", "same_reward", "answer_tokens", "cut_off")
"""What is told of sampled answers, beside the mean score of each metric: no metric has such a name."""


class AnyObjectiveConfig(ProviderConfig):
    """The fields of an objective, and what core must know of it before torch is loaded.

    An objective's own config derives from the class that says what its losses are given: `ObjectiveConfig` (or
    `TeacherConfig`), `SampledConfig`, `MaskedConfig`, `SequenceConfig`, `TokenConfig`, `RetrievalConfig` or
    `SimilarityConfig`. What these have as a `Literal` no objective of theirs has otherwise.

    Attributes:
        head: What the model has on its hidden states: modules that core puts on the base model and trains fully, beside
            the adapter, or its own output layer.
        learns_from: Which records it learns from.
        minimizes: What training minimizes.
        uses_reference: Whether its loss compares with the model as training starts. Core computes that model's
            log-probabilities once, before the first step.
        examples_per_step: About how many examples a step has, where a recipe does not say how many tokens.
    """

    head: ClassVar[Head]
    learns_from: ClassVar[LearnsFrom]
    minimizes: ClassVar[Minimizes] = "examples"
    uses_reference: ClassVar[bool] = False
    examples_per_step: ClassVar[int] = 8

    @property
    def sequences(self) -> int:
        """How many sequences an example has, by what the objective learns from.

        A pair has two, and a labelled answer stands beside its prompt with another record's answer.
        """
        return 2 if self.learns_from in ("pairs", "labelled") else 1

    @property
    def repeats(self) -> int:
        """How many steps see the same examples, one after the other."""
        return 1

    @property
    def judges_texts(self) -> bool:
        """Whether it learns something of each text, which is then laid out by no chat template."""
        return self.names_labels or self.learns_from in ("scores", "scored_pairs", "similar")

    @property
    def names_labels(self) -> bool:
        """Whether what it learns of a text, or of its words, is one of a few labels, or several of them."""
        return self.learns_from in ("labels", "label_sets", "tags")

    @property
    def lays_out(self) -> bool:
        """Whether conversations are laid out by a chat template, where there are any; else texts are seen alone."""
        return self.head != "masked" and not self.judges_texts

    @property
    def label_weights(self) -> Mapping[str, float]:
        """How much each label, or tag, weighs where a text or a word has it; 1 where a label is not named.

        Each is a number above 0. The objective is given them in the order of the labels (`SequenceScores.label_weights`
        and `TokenScores.label_weights`), and multiplies its losses by them. Where a text or a word has one label, core
        divides the sum of a step's losses by the sum of their weights, as torch's `cross_entropy(weight=...)` does.
        Objectives that learn from something else than `labels`, `label_sets` or `tags` have none.
        """
        return {}

    @property
    def awaits_records(self) -> bool:
        """Whether `for_records` has something to fill in; until then every label weighs alike."""
        return False

    def for_records(self, counts: Mapping[str, float], records: float) -> Self:
        """Returns fields of the same class with what follows from the training records, which awaits them no more.

        Records count as often as an epoch sees them: those of a data set whose weight is 0.5 a half each.

        Args:
            counts: How many training records have each label, for an objective that learns from `labels` or
                `label_sets`; how many of their words have each tag, for one that learns from `tags`.
            records: How many training records there are; of `tags`, how many words.

        Raises:
            ValueError: The fields do not hold for these records.
        """
        return self

    def label_order(self, found: Collection[str]) -> Sequence[str]:
        """Returns the labels, or the tags, in the order of their numbers, for an objective that learns from such.

        Args:
            found: Those that the records have.

        Raises:
            ValueError: They are not what the recipe says.
        """
        return sorted(found)


class ObjectiveConfig(AnyObjectiveConfig):
    """The fields of an objective that sees log-probabilities of a language model's tokens (`Objective`)."""

    head: ClassVar[Literal["language"]] = "language"
    learns_from: ClassVar[Literal["answers", "pairs", "labelled", "texts"]] = "answers"


class TeacherConfig(ObjectiveConfig):
    """The fields of an objective that compares the model with another one, its teacher.

    Core scores the teacher once, before the base model is loaded: of each token in the loss it keeps the `top_k`
    likeliest candidates for its place, and their log-probabilities (`Scores.teacher`).
    """

    minimizes: ClassVar[Literal["tokens", "examples", "step"]] = "examples"

    teacher: str = Field(
        min_length=1,
        description="the model to learn from, with the same tokenizer: a folder, a .gguf file, package:NAME/FILE or a "
        "hub id",
    )
    teacher_quantizer: str = Field(
        default="stored",
        min_length=1,
        description="how its weights are held while it is scored: stored, as its files have them; nf4 takes a quarter",
    )
    top_k: int = Field(
        default=64,
        ge=1,
        le=1_000_000,
        description="how many of the teacher's likeliest tokens are kept at each place; all at most",
    )
    temperature: float = Field(
        default=1.0,
        ge=0.01,
        le=100,
        description="what the logits of both models are divided by before they are compared",
    )


_LARGEST_WEIGHT = 1e6


class SampledConfig(AnyObjectiveConfig):
    """The fields of an objective that learns from answers which the model itself gives, by what each is worth.

    Before each step core samples `group_size` answers to the prompt of each of its examples, and scores each by metrics
    of the recipe's `evaluation.metrics`. The weighted sum of the scores is an answer's reward. The objective says what
    follows from the rewards (`SampledObjective.advantages`), and is then asked for losses as any other is; an example
    is one answer, with its `ADVANTAGE` and the step's `MEAN_TOKENS`. Its log-probabilities are those of logits that are
    divided by the temperature, among all tokens: also where `top_k`, `top_p` or `min_p` leave some out that are not
    sampled, or `repetition_penalty` makes some less likely. With `num_iterations` above 1 as many steps learn from the
    same answers, by a model that has moved since it sampled them (`Scores.old`).

    What core reports as the loss is minus the mean reward: what `losses` gives has the gradient alone.
    """

    head: ClassVar[Literal["language"]] = "language"
    learns_from: ClassVar[Literal["prompts"]] = "prompts"
    minimizes: ClassVar[Literal["examples"]] = "examples"
    uses_reference: ClassVar[Literal[False]] = False

    group_size: int = Field(default=8, ge=2, le=1024, description="how many answers to each prompt a step samples")
    max_new_tokens: int = Field(default=128, ge=1, le=1_000_000, description="tokens of a sampled answer at most")
    temperature: float = Field(
        default=1.0,
        ge=0.01,
        le=100,
        description="what logits are divided by before answers are sampled, and before their log-probabilities are "
        "taken",
    )
    top_k: int = Field(
        default=0,
        ge=0,
        le=1 << 31,
        description="answers are sampled from so many of the likeliest tokens; 0 for all. Log-probabilities are taken "
        "among all tokens, whatever top_k, top_p and min_p leave out",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="answers are sampled from the likeliest tokens that have this share of the probability together; "
        "from all when left out",
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="answers are sampled from tokens with at least this share of the likeliest one's probability",
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=0.01,
        le=100,
        description="above 1 tokens that are in the prompt or in the answer so far are sampled less: their logits are "
        "divided by it, or multiplied with it where they are below 0. Log-probabilities are taken without it",
    )
    rewards: dict[str, Annotated[float, Field(ge=-_LARGEST_WEIGHT, le=_LARGEST_WEIGHT)]] = Field(
        default_factory=dict,
        description="which metrics of evaluation.metrics, by name, are summed up to an answer's reward, each times "
        "this; all of them, each once, when left out",
    )
    num_iterations: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="how many steps learn from the same answers, each by the model as it is by then",
    )
    mask_truncated_completions: bool = Field(
        default=False,
        description="whether nothing is learnt of answers that were cut off at max_new_tokens; what they are worth "
        "counts in their group's mean all the same",
    )

    @property
    def repeats(self) -> int:
        """As many as learn from the same answers."""
        return self.num_iterations

    @field_validator("top_k")
    @classmethod
    def _leaves_a_choice(cls, top_k: int) -> int:
        if top_k == 1:
            raise ValueError("top_k: with 1 all answers to a prompt are the same: nothing would be learnt")
        return top_k

    @property
    def compares_with_start(self) -> bool:
        """Whether losses compare the answers with the model as training starts (`Scores.reference`).

        Core then scores the answers of each step by that model, too, and those without an advantage are learnt from.
        """
        return False

    @field_validator("rewards")
    @classmethod
    def _teaches(cls, rewards: dict[str, float]) -> dict[str, float]:
        if rewards and not any(rewards.values()):
            raise ValueError("rewards: all weights are 0: nothing would be learnt")
        return rewards


class MaskedConfig(AnyObjectiveConfig):
    """The fields of an objective that sees log-probabilities of the tokens that core masks (`Objective`)."""

    head: ClassVar[Literal["masked"]] = "masked"
    learns_from: ClassVar[Literal["texts"]] = "texts"
    uses_reference: ClassVar[Literal[False]] = False

    probability: float = Field(
        default=0.15, gt=0, lt=1, description="the share of tokens that are to be found out from the others"
    )


class SequenceConfig(AnyObjectiveConfig):
    """The fields of an objective that sees a head's scores of whole sequences (`SequenceObjective`)."""

    head: ClassVar[Literal["sequence"]] = "sequence"
    learns_from: ClassVar[Literal["pairs", "labels", "label_sets", "scores"]]
    minimizes: ClassVar[Literal["examples"]] = "examples"
    uses_reference: ClassVar[Literal[False]] = False


class TokenConfig(AnyObjectiveConfig):
    """The fields of an objective that sees a head's scores of tokens (`TokenObjective`)."""

    head: ClassVar[Literal["token"]] = "token"
    learns_from: ClassVar[Literal["tags"]] = "tags"
    minimizes: ClassVar[Literal["tokens"]] = "tokens"
    uses_reference: ClassVar[Literal[False]] = False


Pooling = Literal["auto"] | PooledBy
_LONGEST_PROMPT = 10_000


class EmbeddingConfig(AnyObjectiveConfig):
    """The fields of an objective that learns vectors of texts.

    The texts of an example are sequences of their own. All examples of a step are looked at together. A step keeps the
    vectors of all, and computes the body a second time for the gradient, a pass at a time (GradCache, Gao et al., 2021,
    https://arxiv.org/abs/2101.06983): how many are compared takes next to no memory.
    """

    head: ClassVar[Literal["embedding"]] = "embedding"
    minimizes: ClassVar[Literal["step"]] = "step"
    uses_reference: ClassVar[Literal[False]] = False
    examples_per_step: ClassVar[int] = 64

    pooling: Pooling = Field(
        default="auto",
        description="what a text's vector is made of: the hidden states of all its tokens (mean), of the first (cls) "
        "or of the last (lasttoken). auto: as the base model's sentence-transformers files say; else mean for "
        "encoders, lasttoken for models that write one token after the other",
    )
    query_prompt: str = Field(
        default="",
        max_length=_LONGEST_PROMPT,
        description="what is put before each query, or each first text of a pair, such as 'query: '",
    )
    document_prompt: str = Field(
        default="",
        max_length=_LONGEST_PROMPT,
        description="what is put before each document, or each second text of a pair, such as 'passage: '",
    )

    def check_width(self, width: int) -> None:
        """Refuses fields that do not hold for the model's vectors, before anything is done.

        Args:
            width: How many numbers a vector has.

        Raises:
            ValueError: They do not.
        """

    @property
    def sequences(self) -> int:
        """How many sequences an example has at most: two texts."""
        return 2

    @property
    def prompts(self) -> dict[str, str]:
        """What is put before texts, by what they are; those before which something is."""
        said = {"query": self.query_prompt, "document": self.document_prompt}
        return {name: text for name, text in said.items() if text}


class RetrievalConfig(EmbeddingConfig):
    """The fields of an objective that learns vectors by which one text is found by another.

    An example is a query, a document that is to be found by it, and some that are not, in this order. Each one's
    documents are the others' negatives, too.
    """

    learns_from: ClassVar[Literal["similar"]] = "similar"

    negatives: int = Field(
        default=4, ge=0, le=100, description="how many of a record's own negatives are learnt from at most"
    )

    @property
    def sequences(self) -> int:
        """How many sequences an example has at most: a query, its document, and the negatives."""
        return 2 + self.negatives


class SimilarityConfig(EmbeddingConfig):
    """The fields of an objective that learns vectors by the number of each pair of texts: an example is the two."""

    learns_from: ClassVar[Literal["scored_pairs"]] = "scored_pairs"


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
