"""What a run says of what it trains, and on what: base model, head, tokenizer, examples."""

from __future__ import annotations

from typing import Any, Literal

from graftkit.interfaces.architecture import Head, PooledBy
from graftkit.report.run_manifest.facts import Facts

__all__ = [
    "AdapterSource",
    "BaseFacts",
    "ChatFacts",
    "DataFacts",
    "HeadFacts",
    "ParameterFacts",
    "SequenceFacts",
    "SettledKey",
    "TokenizerFacts",
]


class BaseFacts(Facts):
    """The base model.

    Attributes:
        reference: What opens it.
        files: Each file's sha256, in hex, by its name.
    """

    reference: str
    files: dict[str, str] = {}


class HeadFacts(Facts):
    """The head that was put on the base model.

    Attributes:
        kind: What it scores.
        labels: What its scores are of, in their order; empty for the one score of a reward model. A single one is the
            name of a number, unless a text may have `several`.
        pad: The id of the tokenizer's padding token.
        several: Whether a text may have several of the labels, each of which is judged by itself.
        pairs: Whether it was trained on pairs of texts.
        pooled_by: What a sequence's vector is made of, of a model that gives vectors.
        prompts: What was put before texts, by what they are, `query` or `document`, likewise.
    """

    kind: Head
    labels: list[str] = []
    pad: int | None = None
    several: bool = False
    pairs: bool = False
    pooled_by: PooledBy | None = None
    prompts: dict[str, str] | None = None


class AdapterSource(Facts):
    """The folder of an adapter in PEFT's format that something was made of.

    Attributes:
        path: The folder.
        files: The sha256 of its files, in hex, by name.
    """

    path: str
    files: dict[str, str] = {}


class TokenizerFacts(Facts):
    """The tokenizer that examples are encoded with.

    Attributes:
        fingerprint: What its ids depend on, as hex.
        chat_template: The sha256 of the chat template in use, in hex, or None.
        vocab_size: How many ids it has.
        change: What became of the base model's vocabulary, or None where it stayed.
        new_rows: Rows of the embedding that are trained: those that the base model lacks, or an adapter's folder has.
        corpus_tokens: Tokens of the corpus that an extension learnt from: `base`, `extended`, and the share `saved`.
    """

    fingerprint: str
    chat_template: str | None = None
    vocab_size: int = 0
    change: str | None = None
    new_rows: int = 0
    corpus_tokens: dict[str, float] | None = None


class ChatFacts(Facts):
    """How conversations are laid out, where that is not as usual.

    Attributes:
        template_arguments: What the chat template is given besides the conversation.
        template_arguments_sha256: Of these, in hex.
        system: Where a system message stands; see `graftkit.interfaces.chat_options.ChatOptions`.
        turns: Whether a conversation is one example, or each answer is.
        end_of_turn: The text that ends an assistant's turn, where the recipe says it.
        template: The name of the tokenizer's template, where the recipe says it.
    """

    template_arguments: dict[str, Any] = {}
    template_arguments_sha256: str | None = None
    system: Literal["own", "first_user"] = "own"
    turns: Literal["all", "each"] = "all"
    end_of_turn: str | None = None
    template: str | None = None


class DataFacts(Facts):
    """The examples.

    Attributes:
        date: The day that a chat template writes, ISO 8601.
        revisions: The commit of each revision of a hub's data set that is read, by "hub:owner/name@revision".
        fingerprint: What the training and holdout records are, as hex, by "train" and "holdout"; by "layout", all that
            their tokens depend on besides.
        system: The system message that all conversations share, or None.
        tools: Descriptions of the functions that the assistant may call in all conversations; empty where they differ.
        example_prompt: A record's prompt to try the model with, a holdout one where there is one; or None.
        chat: How conversations are laid out, or None where that is as usual.
        prompts: How the model is asked, as it was trained: "chat" for the chat template, "plain" for the text alone.
    """

    date: str
    revisions: dict[str, str] = {}
    fingerprint: dict[str, str] = {}
    system: str | None = None
    tools: list[dict[str, Any]] = []
    example_prompt: str | None = None
    chat: ChatFacts | None = None
    prompts: Literal["chat", "plain"] = "chat"


class SequenceFacts(Facts):
    """Whether a pass holds several sequences, and why not."""

    packed: bool
    reason: str


class ParameterFacts(Facts):
    """How many parameters the model has, and how many and what share of them are trained."""

    total: int
    trainable: int
    trainable_share: float


class SettledKey(Facts):
    """What a key of the recipe that says `auto` came to on this machine.

    Attributes:
        value: The value.
        reason: Why.
    """

    value: int | str
    reason: str

    def describe(self, key: str) -> str:
        """Says it of a key."""
        value = f"{self.value:,}" if isinstance(self.value, int) else self.value
        return f"{key}: auto is {value}: {self.reason}"
