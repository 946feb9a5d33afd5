"""The fields of an objective, and what core must know of it before torch is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator

from graftkit.interfaces.architecture import Head, PooledBy
from graftkit.interfaces.config import ProviderConfig

__all__ = [
    "AnyObjectiveConfig",
    "EmbeddingConfig",
    "LearnsFrom",
    "MaskedConfig",
    "Minimizes",
    "ObjectiveConfig",
    "RetrievalConfig",
    "SampledConfig",
    "SequenceConfig",
    "SimilarityConfig",
    "TeacherConfig",
    "TokenConfig",
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
