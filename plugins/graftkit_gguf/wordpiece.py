"""WordPiece, the tokenizer of BERT's kind, in the metadata of a GGUF file, in both directions.

llama.cpp writes `▁` before pieces that begin a word, and leaves the `##` before the others out ("phantom space"). It
cleans text and sets punctuation and Chinese characters apart as BERT does; whether text becomes lower case, and loses
its accents, the file says. Each text is put between the token of the role bos and that of the separator
(`llm_tokenizer_wpm_session` in llama-vocab.cpp).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.errors import ExportError
from graftkit.tokenization.tokenizer_json import added_token, tokenizer_json

from graftkit_gguf.metadata import Metadata
from graftkit_gguf.text_form import UNICODE_FORM, UnicodeForm, flags_of
from graftkit_gguf.vocabulary_keys import CONTROL, NORMAL, UNKNOWN, USER_DEFINED

__all__ = [
    "MASK_ID",
    "NORMALIZER_KEYS",
    "SEPARATOR_ID",
    "WordPieceTokenizer",
    "notices_of_scripts",
    "wordpiece_metadata",
    "wordpieces",
]

SEPARATOR_ID, MASK_ID = "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.mask_token_id"
"""llama.cpp's own spelling."""
_LOWERCASE, _STRIP_ACCENTS = "tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.normalizer.strip_accents"
NORMALIZER_KEYS = (_LOWERCASE, _STRIP_ACCENTS)
"""The keys that say what becomes of text before it is cut."""

_SPACE, _CONTINUED = "▁", "##"
_BEGUN = f"{_CONTINUED}{_SPACE}"
"""How a piece within a word begins that would begin one in GGUF."""
_BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
_DECOMPOSED: UnicodeForm = "NFD"
_VOWELS = ("\u1161", "\u1175")
"""Of Hangul, the first and the last."""
_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
_LONGEST_WORD = 100
"""Characters of a word, beyond which BERT's is unknown; llama.cpp cuts it all the same."""


def wordpieces(tokens: Sequence[str], types: Sequence[int]) -> list[str]:
    """Returns the pieces of a vocabulary as llama.cpp writes them.

    Args:
        tokens: Each id's token.
        types: What it is; those that are no ordinary ones are written as they are.

    Raises:
        ExportError: Two pieces would be the same, or one would be empty, or begin a word that it does not begin.

    Example:
        >>> wordpieces(["[CLS]", "love", "##ly"], [CONTROL, NORMAL, NORMAL])
        ['[CLS]', '▁love', 'ly']
    """
    found = [_phantom(token) if type_ == NORMAL else token for token, type_ in zip(tokens, types, strict=True)]
    begun = [token for token, type_ in zip(tokens, types, strict=True) if type_ == NORMAL and token.startswith(_BEGUN)]
    if len(set(found)) < len(found) or "" in found or begun:
        raise ExportError("its pieces have no form in GGUF, where ▁ stands before those that begin a word, and no ##")
    return found


def _phantom(token: str) -> str:
    return token.removeprefix(_CONTINUED) if token.startswith(_CONTINUED) else f"{_SPACE}{token}"


def wordpiece_metadata(spec: Mapping[str, Any], added: tuple[bool, bool], eos: int | None) -> dict[str, Any]:
    """Returns what is said of a WordPiece tokenizer besides its pieces and roles.

    Args:
        spec: The content of tokenizer.json.
        added: Whether a token is put before a text, and one after it.
        eos: The id of the latter.

    Raises:
        ExportError: llama.cpp can't cut text so.
    """
    normalizer, split = spec.get("normalizer") or {}, spec.get("pre_tokenizer") or {}
    if {key: normalizer.get(key) for key in _BERT} != _BERT or split.get("type") != "BertPreTokenizer":
        raise ExportError("a WordPiece tokenizer has a form in GGUF only where it splits and cleans text as BERT does")
    if spec["model"].get("continuing_subword_prefix", _CONTINUED) != _CONTINUED:
        raise ExportError("a WordPiece tokenizer has a form in GGUF only where ## stands before pieces within a word")
    if not all(added) or eos is None:
        raise ExportError("llama.cpp puts a WordPiece text between two tokens, and its tokenizer does not")
    lower = bool(normalizer.get("lowercase"))
    strips = lower if normalizer.get("strip_accents") is None else bool(normalizer["strip_accents"])
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        SEPARATOR_ID: eos,
        _LOWERCASE: lower,
        _STRIP_ACCENTS: strips,
        **({UNICODE_FORM: _DECOMPOSED} if strips else {}),
    }


def notices_of_scripts(metadata: Mapping[str, Any]) -> list[str]:
    """Says of which scripts llama.cpp finds other tokens, where there are tokens for them.

    Where accents are stripped, it strips spacing marks with them, which BERT keeps, and takes a syllable of Hangul for
    its first part, unless it is given the parts. All else that it cuts otherwise are rare characters.

    Args:
        metadata: What the file says of the tokenizer.
    """
    if not metadata.get(_STRIP_ACCENTS):
        return []
    characters = {character for token in metadata["tokenizer.ggml.tokens"] for character in token}
    told = []
    if any(unicodedata.category(character) == "Mc" for character in characters):
        told.append(
            "llama.cpp strips vowel signs with the accents, and finds other tokens in scripts that have them, such as "
            "Devanagari, Bengali and Tamil"
        )
    if any(_VOWELS[0] <= character <= _VOWELS[1] for character in characters):
        told.append("llama.cpp finds other tokens in Korean unless it is given the text in the form NFD")
    return told


@dataclass(frozen=True, slots=True)
class WordPieceTokenizer:
    """The WordPiece tokenizer of a GGUF file.

    Attributes:
        vocabulary: Token -> id, in the order of the ids, `##` before pieces within a word.
        types: For each id what it is, as of `GgufTokenizer`.
        roles: "cls_token", "sep_token", "unk_token", "pad_token", "mask_token" -> the token, as far as there are any.
        lowercase: Whether text becomes lower case.
        strips_accents: Whether it loses its accents.
        max_length: The most tokens that the model was made for, or None.
        flags: Token -> its flags, of those that take the white space beside them.
        chat_template: None.
    """

    vocabulary: Mapping[str, int]
    types: Sequence[int]
    roles: Mapping[str, str]
    lowercase: bool
    strips_accents: bool
    max_length: int | None
    flags: Mapping[str, Mapping[str, bool]]
    chat_template: str | None = None

    @classmethod
    def read(
        cls,
        metadata: Metadata,
        vocabulary: Mapping[str, int],
        types: Sequence[int],
        roles: Mapping[str, str],
        max_length: int | None,
    ) -> WordPieceTokenizer:
        """Reads it from a file's metadata.

        Args:
            metadata: The file's.
            vocabulary: Its tokens as llama.cpp writes them.
            types: What they are.
            roles: The tokens of the roles that other tokenizers have, too.
            max_length: The most tokens that the model was made for, or None.

        Raises:
            ModelError: It names no tokens that are put around a text, or contradicts itself.
        """
        tokens = list(vocabulary)
        named = {"sep_token": SEPARATOR_ID, "mask_token": MASK_ID}
        ids = {role: metadata.integer(key) for role, key in named.items() if key in metadata or role == "sep_token"}
        for role, id in ids.items():
            if id >= len(tokens):
                raise metadata.error(named[role], f"but there are {len(tokens):,} tokens")
        if "bos_token" not in roles or "unk_token" not in roles:
            raise metadata.refused("it does not say which token stands before a text, or for what is unknown")
        apart = {*ids.values(), *(vocabulary[token] for token in roles.values())}
        found = {
            token if type_ != NORMAL or id in apart else _plain(token): id
            for id, (token, type_) in enumerate(zip(tokens, types, strict=True))
        }
        if len(found) < len(tokens):
            raise metadata.error("tokenizer.ggml.tokens", "of which two are the same piece")
        begun = f"{_SPACE}{_CONTINUED}"
        if any(type_ == NORMAL and token.startswith(begun) for token, type_ in zip(tokens, types, strict=True)):
            raise metadata.error("tokenizer.ggml.tokens", f"of which one begins a word with {_CONTINUED}, as none does")
        lower = metadata.flag(_LOWERCASE, True)
        own = {"cls_token": roles["bos_token"], **{role: tokens[id] for role, id in ids.items()}}
        return cls(
            found,
            types,
            {**own, **{role: token for role, token in roles.items() if role in ("unk_token", "pad_token")}},
            lower,
            metadata.flag(_STRIP_ACCENTS, lower),
            max_length,
            flags_of(metadata),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the content of tokenizer.json."""
        ids = self.vocabulary
        around = [[self.roles[role], ids[self.roles[role]]] for role in ("cls_token", "sep_token")]
        apart = {*self.roles.values()}
        return tokenizer_json(
            model={
                "type": "WordPiece",
                "unk_token": self.roles["unk_token"],
                "continuing_subword_prefix": _CONTINUED,
                "max_input_chars_per_word": _LONGEST_WORD,
                "vocab": dict(ids),
            },
            added_tokens=[
                added_token(id, token, special=type_ != USER_DEFINED or token in apart, **self.flags.get(token, {}))
                for (token, id), type_ in zip(ids.items(), self.types, strict=True)
                if type_ in (UNKNOWN, CONTROL, USER_DEFINED) or token in apart
            ],
            normalizer={**_BERT, "strip_accents": self.strips_accents, "lowercase": self.lowercase},
            pre_tokenizer={"type": "BertPreTokenizer"},
            post_processor={"type": "BertProcessing", "sep": around[1], "cls": around[0]},
            decoder={"type": "WordPiece", "prefix": _CONTINUED, "cleanup": True},
        )

    def config(self) -> dict[str, Any]:
        """Returns the content of tokenizer_config.json."""
        limit = {} if self.max_length is None else {"model_max_length": self.max_length}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        return {**kind, "model_input_names": _INPUTS, **self.roles, **limit}


def _plain(token: str) -> str:
    """Returns a piece as BERT writes it."""
    return token.removeprefix(_SPACE) if token.startswith(_SPACE) else f"{_CONTINUED}{token}"
