"""What turns text into token ids, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

__all__ = [
    "ROLES",
    "AddedTokens",
    "CertainCuts",
    "ControlTokens",
    "Encoding",
    "JoinsPairs",
    "NamedTemplates",
    "NamedTokens",
    "PairLayout",
    "PutsAround",
    "Role",
    "Specials",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerBackend",
    "TokenizerCapabilities",
    "bytes_of",
]

Role = Literal["bos", "eos", "pad", "unk"]
"""What a special token is for: beginning, end, padding, unknown."""

ROLES: tuple[Role, ...] = ("bos", "eos", "pad", "unk")

Specials = Literal["none", "all"] | frozenset[str]
"""Which special tokens may be read out of the text: none of them, all, or the ones named."""


@dataclass(frozen=True, slots=True)
class TokenizerCapabilities:
    """What a tokenizer promises.

    Attributes:
        lossless_unicode: `decode(encode(text))` is `text` for every text.
        lossless_bytes: `decode_bytes` gives back every byte of every text's UTF-8.
        offsets: `encode_offsets` says where in the text each token stands.
        trainable: Its backend can train one.
        extendable: Its backend can add tokens to one.
        coarsening: Extending it only ever joins old tokens; it never cuts a text elsewhere.
    """

    lossless_unicode: bool
    lossless_bytes: bool
    offsets: bool
    trainable: bool
    extendable: bool
    coarsening: bool


@dataclass(frozen=True, slots=True)
class Encoding:
    """Token ids and where each stands in the text.

    Attributes:
        ids: Token ids, `[tokens]`.
        offsets: For each token its start and end, in characters of the text as it was given.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class StreamDecoder(Protocol):
    """Turns ids into text as they come, never showing half a character."""

    def push(self, token: int) -> str:
        """Returns the text that this token completes; empty while a character is still open."""

    def finish(self) -> str:
        """Returns what is left, an open character as U+FFFD."""


@runtime_checkable
class Tokenizer(Protocol):
    """A vocabulary and the way text is cut into it.

    Text is the user's unless said otherwise: with the default `specials="none"` no special id ever comes out.
    """

    @property
    def vocab_size(self) -> int:
        """The number of ids, added tokens included: the highest id plus one."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """The special tokens and their ids."""

    @property
    def capabilities(self) -> TokenizerCapabilities:
        """What this tokenizer promises."""

    @property
    def fingerprint(self) -> str:
        """A sha256, in hex, of everything that decides which ids a text becomes."""

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that lays out a conversation, or None."""

    def with_chat_template(self, template: str) -> Tokenizer:
        """Returns a tokenizer that carries this chat template, and saves it, in place of any that this one has.

        It has the same ids and the same fingerprint; this one stays as it is.
        """

    def role_token(self, role: Role) -> int | None:
        """Returns the id of the token with this role, or None where there is none."""

    @property
    def adds_bos(self) -> bool:
        """Whether a text starts with the beginning-of-sequence token."""

    def encode(self, text: str, specials: Specials = "none") -> list[int]:
        """Returns the ids of one text."""

    def encode_batch(self, texts: Sequence[str], specials: Specials = "none") -> list[list[int]]:
        """Returns the ids of many texts: the same as `encode` one by one."""

    def encode_offsets(self, text: str, specials: Specials = "none") -> Encoding:
        """Returns the ids of one text with their places in it."""

    def decode(self, ids: Sequence[int], *, skip_specials: bool = False) -> str:
        """Returns the text of these ids; bytes that are no UTF-8 become U+FFFD."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Returns the bytes of these ids."""

    def stream_decoder(self) -> StreamDecoder:
        """Returns a decoder for ids that come one by one."""

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes that one id stands for.

        Raises:
            IndexError: No such id.
        """

    def normalize(self, text: str) -> str:
        """Returns the text as the tokenizer sees it before it cuts."""

    def save(self, folder: Path, format: str = "huggingface") -> None:
        """Writes the tokenizer into a folder, in one of the backend's formats."""


def bytes_of(tokenizer: Tokenizer, id: int) -> bytes | None:
    """Returns the bytes that an id stands for; None where it stands for none.

    Args:
        tokenizer: The tokenizer.
        id: The id.
    """
    try:
        return tokenizer.token_bytes(id)
    except IndexError:
        return None


@runtime_checkable
class AddedTokens(Protocol):
    """What a tokenizer may tell besides: the tokens that are read out of a text before it is cut into pieces."""

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """The added tokens, special ones among them, and their ids."""


@runtime_checkable
class NamedTemplates(Protocol):
    """What a tokenizer may tell besides: its chat templates by name, where it has several."""

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """The Jinja templates by name; `chat_template` is the one called "default"."""


@runtime_checkable
class NamedTokens(Protocol):
    """What a tokenizer may tell besides: the variables of chat templates that hold special tokens."""

    @property
    def named_tokens(self) -> Mapping[str, str]:
        """The special tokens that its configuration names: `bos_token`, `image_token`, ... -> text."""


@runtime_checkable
class ControlTokens(Protocol):
    """What a tokenizer may do besides: keep added tokens that are not flagged as special out of users' texts."""

    def with_control_tokens(self, tokens: Collection[str]) -> Tokenizer:
        """Returns a tokenizer whose special tokens are its own and these.

        With `specials="all"` it gives the same ids, with `"none"` it reads none of them out of a text; it saves the
        same files. This one stays as it is.

        Args:
            tokens: Texts of added tokens; others are left out.
        """


@runtime_checkable
class CertainCuts(Protocol):
    """What a tokenizer may tell besides: where it cuts every text, so that parts of a text can be encoded alone."""

    @property
    def cuts_at_specials(self) -> bool:
        """Whether the text between two special tokens always has the ids that it has alone.

        Then `encode(text, "all")` has, between the special tokens in the text, what `encode` gives for each stretch.
        """

    def cuts_between(self, before: str, after: str) -> bool:
        """Tells whether a text is always cut between a character and the one that follows it.

        Then `encode(left + right)` is `encode(left) + encode(right)` for every `left` that ends with the one and every
        `right` that begins with the other, special tokens being ordinary text.
        """


@runtime_checkable
class PutsAround(Protocol):
    """What a tokenizer may tell besides: the tokens that it puts around a text, such as BERT's `[CLS]` and `[SEP]`."""

    @property
    def put_around(self) -> tuple[Sequence[int], Sequence[int]]:
        """The ids before a text and those after it, as a program adds them that is not told to leave them out."""


@dataclass(frozen=True, slots=True)
class PairLayout:
    """What a tokenizer puts around the two texts of a pair, such as BERT's `[CLS] first [SEP] second [SEP]`.

    Attributes:
        before: The ids before the first text.
        between: Those between the two.
        after: Those after the second one.
        types: What a model is told of each token that has embeddings of them (`token_type_ids`): of those before, of
            the first text's, of those between, of the second text's, and of those after.
    """

    before: Sequence[int]
    between: Sequence[int]
    after: Sequence[int]
    types: tuple[Sequence[int], int, Sequence[int], int, Sequence[int]]

    @property
    def added(self) -> int:
        """How many ids are put around the two texts."""
        return len(self.before) + len(self.between) + len(self.after)

    def of(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the ids of a pair, and their types.

        Args:
            first: The ids of the first text.
            second: Those of the second one.
        """
        before, of_first, between, of_second, after = self.types
        ids = [*self.before, *first, *self.between, *second, *self.after]
        return ids, [*before, *[of_first] * len(first), *between, *[of_second] * len(second), *after]


@runtime_checkable
class JoinsPairs(Protocol):
    """What a tokenizer may tell besides: how the two texts of a pair become one sequence."""

    @property
    def pair_layout(self) -> PairLayout:
        """What it puts around the two texts, as a program adds it that is not told to leave it out."""


class TokenizerBackend(Protocol):
    """Makes tokenizers of one family.

    What one that can be trained or extended has besides is in `graftkit.interfaces.vocabulary`.

    Attributes:
        formats: The names that `Tokenizer.save` takes, the one that it uses unasked first.
    """

    formats: tuple[str, ...]

    def accepts(self, path: Path) -> bool:
        """Tells from a look at the disk whether this backend reads that folder or file."""

    def load(self, path: Path) -> Tokenizer:
        """Reads a tokenizer from a folder, or from the one file that it consists of.

        Raises:
            ModelError: The files are missing or malformed.
        """
