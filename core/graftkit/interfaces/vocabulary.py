"""What changes when a vocabulary does: what to train or add, and what each new token stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PARTS

__all__ = [
    "ChangeKind",
    "ExtendableBackend",
    "ExtensionPlan",
    "ExtensionSpec",
    "NewToken",
    "TrainableBackend",
    "TrainingSpec",
    "VocabularyChange",
]


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What a new tokenizer is to have, whichever family it is of.

    Attributes:
        vocab_size: The most ids that it may have, special tokens included. A small corpus may give fewer.
        special_tokens: Special tokens, which get the first ids in this order.
        roles: "bos", "eos", "pad" or "unk" -> which of the special tokens has that role.
        adds_bos: Whether a text starts with the beginning-of-sequence token.
        chat_template: The Jinja template that lays out a conversation, or None.
        named_templates: The others by name, such as "tool_use".
    """

    vocab_size: int
    special_tokens: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    adds_bos: bool = False
    chat_template: str | None = None
    named_templates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExtensionSpec:
    """What is to be added to a tokenizer.

    Attributes:
        tokens: How many tokens to learn from the texts, at most; those of `words` and bytes do not count.
        min_frequency: How often a pair has to occur to become a token.
        max_length: Characters of a token at most, as the tokenizer writes it; None for no limit.
        missing_bytes: Whether a base that loses text gets the bytes that it lacks.
        words: Texts that become a token each, whatever the corpus says.
    """

    tokens: int
    min_frequency: int = 2
    max_length: int | None = None
    missing_bytes: bool = True
    words: tuple[str, ...] = ()

    def check_room(self, ids: int) -> None:
        """Makes sure that a tokenizer may become as large as is asked, before its tokens are learnt.

        Args:
            ids: How many ids it has.

        Raises:
            RequestError: With the tokens and words that are asked for it might have more than a tokenizer may have.
        """
        if ids + self.tokens + len(self.words) > MOST_IDS:
            words = f" and {len(self.words):,} words" if self.words else ""
            left = MOST_IDS - ids - len(self.words)
            raise RequestError(
                f"{self.tokens:,} tokens{words} after the base's {ids:,} ids are too many: a tokenizer may have "
                f"{MOST_IDS:,} ids",
                hint=f"Ask for {left:,} tokens at most." if left > 0 else "This tokenizer has no room for them.",
            )


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that the base does not have.

    Attributes:
        id: Its id; new ids follow the base's without a gap.
        data: The bytes that it stands for.
        parts: The base's ids that stood for it, in order; empty where the base lost such text.
        uses: How often it occurs in the texts once all new tokens are there. One that is never used, since a longer
            token always takes its place, is scaffolding: later tokens are built on it.
    """

    id: int
    data: bytes
    parts: tuple[int, ...]
    uses: int


@dataclass(frozen=True, slots=True)
class ExtensionPlan:
    """An extended tokenizer and what is new in it.

    Attributes:
        tokenizer: The extended tokenizer; every id of the base means what it meant.
        tokens: The new tokens in the order of their ids. The first n of those that were learnt are what learning n
            tokens would have given.
        coarsens: Whether every text's tokens are the base's with some of them joined. Where not, as with WordPiece
            and Unigram, a text may be cut elsewhere than before even next to a new token.
        base_tokens: Tokens of the texts as the base cuts them.
        tokens_after: Tokens of the texts as the extended tokenizer cuts them.
    """

    tokenizer: Tokenizer
    tokens: tuple[NewToken, ...]
    coarsens: bool
    base_tokens: int
    tokens_after: int

    @property
    def scaffolding(self) -> tuple[NewToken, ...]:
        """The new tokens that the texts never use."""
        return tuple(token for token in self.tokens if not token.uses)


@runtime_checkable
class TrainableBackend(Protocol):
    """A backend that learns tokenizers from texts."""

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> Tokenizer:
        """Learns a tokenizer; the same for the same texts in whatever order, on any number of threads.

        Args:
            texts: Stretches of text, each of moderate size; iterated once, never held in memory as a whole.
            spec: What it is to have.

        Raises:
            RequestError: The specification can't be met, such as a vocabulary smaller than what it must hold.
        """


@runtime_checkable
class ExtendableBackend(Protocol):
    """A backend that adds tokens to a tokenizer whose ids a model already knows."""

    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        """Adds tokens. No id of the base moves, added and special tokens keep theirs.

        Args:
            tokenizer: A tokenizer that this backend loaded; it is left as it is.
            texts: Stretches of text to learn from; iterated once.
            spec: What to add.

        Raises:
            RequestError: This tokenizer can't be extended, or the texts hold nothing to learn.
        """


_MOST_ROWS = 2**31 - 1

ChangeKind = Literal["extended", "trained", "replaced"]


@dataclass(frozen=True, slots=True)
class VocabularyChange:
    """How the rows of a model's embeddings follow its vocabulary.

    Attributes:
        kind: Whether tokens were added to the base's, or the tokenizer is another one.
        size: Rows of the embeddings afterwards.
        ids: The ids whose rows are new, ascending.
        parts: For each of them the base's ids that stood for its text; empty where the base had none.
        kept: The other ids' rows: new id -> the base's id whose row it keeps; None where every id of the base keeps
            its row, spare rows beyond the base tokenizer's ids included.
    """

    kind: ChangeKind
    size: int
    ids: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    kept: Mapping[int, int] | None = None

    @property
    def moves_ids(self) -> bool:
        """Whether an id of the base may mean another token now."""
        return self.kept is not None

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        kept = None if self.kept is None else [[new, old] for new, old in sorted(self.kept.items())]
        parts = [list(ids) for ids in self.parts]
        return {"kind": self.kind, "size": self.size, "ids": list(self.ids), "parts": parts, "kept": kept}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VocabularyChange:
        """Reads what `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        if any(len(data[key] or ()) > MOST_IDS for key in ("ids", "parts", "kept")):
            raise ValueError(f"it has over {MOST_IDS:,} ids")
        if sum(map(len, data["parts"])) > MOST_PARTS:
            raise ValueError(f"its new ids stood for over {MOST_PARTS:,} ids of the base")
        try:
            kept = None if data["kept"] is None else {int(new): int(old) for new, old in data["kept"]}
            ids, parts = tuple(map(int, data["ids"])), tuple(tuple(map(int, ids)) for ids in data["parts"])
        except OverflowError:
            raise ValueError("an id is infinite") from None
        if not 0 <= data["size"] <= _MOST_ROWS:
            raise ValueError(f"a vocabulary has at most {_MOST_ROWS:,} rows")
        if type(data["size"]) is not int or data["kind"] not in get_args(ChangeKind):
            raise ValueError(f"its kind is one of {', '.join(get_args(ChangeKind))}, and its size a whole number")
        if len(ids) != len(parts) or any(not 0 <= id < data["size"] for id in (*ids, *(kept or ()))):
            raise ValueError("the new ids, their parts and the number of rows do not fit together")
        if any(id >= later for id, later in pairwise(ids)):
            raise ValueError("the new ids are not ascending")
        return cls(data["kind"], data["size"], ids, parts, kept)
