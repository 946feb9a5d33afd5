"""Converts the tokenizer of a GGUF file to the files that `tokenizers` and `transformers` read.

Four kinds (`tokenizer.ggml.model`, see `docs/gguf.md` in the ggml project): "gpt2" has merges of byte-level pieces and
the name of a way to split text (`tokenizer.ggml.pre`), whose meaning is a part of llama.cpp; "llama" has pieces with
scores and `▁` for a space, as SentencePiece writes them, and a piece for each byte; "t5" is Unigram (`unigram.py`), and
"bert" WordPiece (`wordpiece.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.vocabulary_limits import MOST_CHARACTERS, MOST_MERGES, MOST_PIECES
from graftkit.tokenization.scored_pieces import merges_of_scores
from graftkit.tokenization.tokenizer_json import (
    added_token,
    bpe_model,
    byte_level_decoder,
    bytes_decoder,
    dump,
    template,
    tokenizer_json,
)

from graftkit_gguf.header import GgufHeader
from graftkit_gguf.metadata import Metadata
from graftkit_gguf.splitting import SPLITTINGS, Splitting, missing_bytes_apart
from graftkit_gguf.text_form import UNICODE_FORM, UnicodeForm, flags_of, form_of
from graftkit_gguf.unigram import Unigram
from graftkit_gguf.vocabulary_keys import CONTROL, ROLE_KEYS, UNKNOWN, USER_DEFINED
from graftkit_gguf.wordpiece import SEPARATOR_ID, WordPieceTokenizer

__all__ = ["GgufTokenizer", "read_tokenizer", "save_tokenizer"]

_SPACE = "▁"
_LONGEST_TOKEN = 1_024
"""The longest tokens in use have a few hundred characters. Merges that scores stand for are looked for between all
characters of all tokens."""


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """The BPE or Unigram tokenizer of a GGUF file, validated.

    Attributes:
        vocabulary: Token -> id, in the order of the ids.
        types: For each id what it is: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
        merges: Pairs of tokens, the first to be merged first.
        roles: "bos_token", "eos_token", "unk_token", "pad_token" -> the token, as far as there are any.
        splitting: How text is split before merging; None where it is not, and pieces have `▁` for a space.
        unigram: How likely pieces are, of a Unigram tokenizer; None of another. Without `splitting` and merges.
        unicode_form: The form of Unicode that text is given first, or None. With `splitting`.
        adds_space: A text, and what follows a control or user-defined token, starts with a space. Without `splitting`.
        adds_bos: A text starts with the beginning-of-sequence token.
        adds_eos: A text ends with the end-of-sequence token.
        max_length: The most tokens that the model was made for, or None.
        chat_template: The Jinja template that lays out a conversation, or None.
        separates: The token of the role eos stands between the texts of a pair once more, as RoBERTa has it.
        flags: Token -> its flags, of those that take the white space beside them.
    """

    vocabulary: Mapping[str, int]
    types: Sequence[int]
    merges: Sequence[tuple[str, str]]
    roles: Mapping[str, str]
    splitting: Splitting | None
    unigram: Unigram | None
    unicode_form: UnicodeForm | None
    adds_space: bool
    adds_bos: bool
    adds_eos: bool
    max_length: int | None
    chat_template: str | None
    separates: bool
    flags: Mapping[str, Mapping[str, bool]]

    def to_json(self) -> dict[str, Any]:
        """Returns the content of tokenizer.json."""
        if self.unigram:
            parts = self.unigram.parts(self.vocabulary)
        else:
            parts = self._marked_spaces() if self.splitting is None else self._split_bytes(self.splitting)
        return tokenizer_json(added_tokens=self._added_tokens(), post_processor=self._post_processor(), **parts)

    def _marked_spaces(self) -> dict[str, dict[str, Any]]:
        """Returns the parts that cut text whose spaces are written as `▁`."""
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        decoder = bytes_decoder(_SPACE)
        before, first = [], []
        if self.adds_space:
            before = [{"type": "Prepend", "prepend": _SPACE}]
            first = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
        return {
            "model": bpe_model(self.vocabulary, self.merges, byte_fallback=True),
            "normalizer": {"type": "Sequence", "normalizers": [*before, replace]},
            "decoder": {**decoder, "decoders": [*decoder["decoders"], *first]},
        }

    def _split_bytes(self, splitting: Splitting) -> dict[str, dict[str, Any]]:
        """Returns the parts that split text and cut its bytes."""
        pre_tokenizers = [*splitting.pre_tokenizers, *missing_bytes_apart(self.vocabulary)]
        return {
            "model": bpe_model(self.vocabulary, self.merges, ignore_merges=splitting.whole_words),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
            "decoder": byte_level_decoder(),
            **({"normalizer": {"type": self.unicode_form}} if self.unicode_form else {}),
        }

    def config(self) -> dict[str, Any]:
        """Returns the content of tokenizer_config.json."""
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self.roles,
            "add_bos_token": self.adds_bos,
            "clean_up_tokenization_spaces": False,
        }
        if self.adds_eos:
            config["add_eos_token"] = True
        if self.max_length is not None:
            config["model_max_length"] = self.max_length
        return config

    def _added_tokens(self) -> list[dict[str, Any]]:
        """Returns `added_tokens`. Control tokens are special, and tokens with a role, as in `transformers`."""
        special = set(self.roles.values())
        return [
            added_token(id_, token, special=type_ != USER_DEFINED or token in special, **self.flags.get(token, {}))
            for (token, id_), type_ in zip(self.vocabulary.items(), self.types, strict=True)
            if type_ in (UNKNOWN, CONTROL, USER_DEFINED) or token in special
        ]

    def _post_processor(self) -> dict[str, Any] | None:
        before = [self.roles["bos_token"]] if self.adds_bos else []
        after = [self.roles["eos_token"]] if self.adds_eos else []
        if not before and not after:
            return None
        ids = self.vocabulary
        if self.separates:
            around = {kind: [token, ids[token]] for kind, [token] in (("sep", after), ("cls", before))}
            return {"type": "RobertaProcessing", **around, "trim_offsets": True, "add_prefix_space": False}
        return template(before={token: ids[token] for token in before}, after={token: ids[token] for token in after})


def read_tokenizer(header: GgufHeader) -> GgufTokenizer | WordPieceTokenizer:
    """Reads the tokenizer from a file's metadata.

    Raises:
        ModelError: There is none, it is of a kind or has a splitting that is not supported, or it contradicts
            itself.
    """
    metadata = Metadata(header.path, header.metadata)
    if "tokenizer.ggml.model" not in metadata:
        raise ModelError("the file has no tokenizer", where=str(metadata.path), hint="Name one in the recipe.")
    kind = metadata.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama", "bert", "t5"):
        raise _unsupported(metadata, f"its tokenizer is of the kind {kind[:80]!r}, which is not supported")
    splitting = _splitting(metadata) if kind == "gpt2" else None
    tokens = metadata.texts("tokenizer.ggml.tokens")
    vocabulary = _vocabulary(metadata, tokens)
    types = _types(metadata, len(tokens))
    roles = _roles(metadata, tokens)
    if kind == "bert":
        return WordPieceTokenizer.read(metadata, vocabulary, types, roles, _context(metadata))
    unigram = Unigram.read(metadata, tokens) if kind == "t5" else None
    adds_bos = _adds(metadata, "bos", roles, splitting.adds_bos if splitting else unigram is None)
    adds_eos = _adds(metadata, "eos", roles, unigram is not None)
    return GgufTokenizer(
        vocabulary=vocabulary,
        types=types,
        merges=_merges(metadata, vocabulary)
        if splitting
        else []
        if unigram
        else _merges_of_scores(metadata, tokens, types),
        roles=roles,
        splitting=splitting,
        unigram=unigram,
        unicode_form=form_of(metadata.values.get(UNICODE_FORM)) if splitting else None,
        adds_space=splitting is None and metadata.flag("tokenizer.ggml.add_space_prefix", True),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        max_length=_context(metadata),
        chat_template=metadata.text("tokenizer.chat_template") if "tokenizer.chat_template" in metadata else None,
        separates=adds_bos and adds_eos and metadata.values.get(SEPARATOR_ID) == metadata.values.get(ROLE_KEYS["eos"]),
        flags=flags_of(metadata),
    )


def _context(metadata: Metadata) -> int | None:
    key = f"{metadata.text('general.architecture', 'llama')}.context_length"
    return metadata.integer(key) if key in metadata else None


def save_tokenizer(header: GgufHeader, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja: always the same bytes.

    `transformers.AutoTokenizer` loads the folder.

    Args:
        header: The file's header.
        folder: An existing folder.

    Raises:
        ModelError: As for `read_tokenizer`.
    """
    tokenizer = read_tokenizer(header)
    compact = json.dumps(tokenizer.to_json(), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_bytes(compact.encode())
    (folder / "tokenizer_config.json").write_bytes(dump(tokenizer.config()))
    if tokenizer.chat_template is not None:
        (folder / "chat_template.jinja").write_bytes(tokenizer.chat_template.encode())


def _splitting(metadata: Metadata) -> Splitting:
    name = metadata.text("tokenizer.ggml.pre", "default")
    if name not in SPLITTINGS:
        raise _unsupported(metadata, f"its tokenizer splits text as {name[:80]!r}, which is not supported")
    return SPLITTINGS[name]


def _unsupported(metadata: Metadata, message: str) -> ModelError:
    supported = ", ".join(sorted(SPLITTINGS))
    return ModelError(
        message,
        where=str(metadata.path),
        hint="Supported: tokenizer.ggml.model 'llama', 'bert' and 't5', and 'gpt2' with one of these as "
        f"tokenizer.ggml.pre: {supported}.",
    )


def _vocabulary(metadata: Metadata, tokens: Sequence[str]) -> dict[str, int]:
    key = "tokenizer.ggml.tokens"
    lengths = [len(token) for token in tokens]
    _check_most(metadata, key, "elements", len(tokens), MOST_PIECES)
    _check_most(metadata, key, "characters in one element", max(lengths, default=0), _LONGEST_TOKEN)
    _check_most(metadata, key, "characters", sum(lengths), MOST_CHARACTERS)
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    for id_, token in enumerate(tokens):
        if not token or vocabulary[token] != id_:
            raise metadata.error(key, f"whose element {id_} is empty or occurs twice")
    return vocabulary


def _check_most(metadata: Metadata, key: str, what: str, count: int, most: int) -> None:
    if count > most:
        raise metadata.refused(f"{key} has {count:,} {what}; {most:,} are allowed")


def _types(metadata: Metadata, count: int) -> list[int]:
    if "tokenizer.ggml.token_type" not in metadata:
        return [1] * count
    types = metadata.integers("tokenizer.ggml.token_type")
    if len(types) != count:
        raise metadata.error("tokenizer.ggml.token_type", f"but there are {count:,} tokens")
    return types


def _merges(metadata: Metadata, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Returns the merges, without duplicates after the first."""
    pairs: dict[tuple[str, str], None] = {}
    merges = metadata.texts("tokenizer.ggml.merges")
    _check_most(metadata, "tokenizer.ggml.merges", "elements", len(merges), MOST_MERGES)
    for number, merge in enumerate(merges):
        left, _, right = merge[1:].partition(" ")
        left = merge[:1] + left
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise metadata.error("tokenizer.ggml.merges", f"whose element {number} does not join tokens into one")
        pairs.setdefault((left, right))
    return list(pairs)


def _merges_of_scores(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> list[tuple[str, str]]:
    """Returns the merges of pieces with scores, of those that text may be cut into."""
    if metadata.flag("tokenizer.ggml.remove_extra_whitespaces", False):
        raise metadata.error("tokenizer.ggml.remove_extra_whitespaces", "which is not supported")
    known = set(tokens)
    missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in known]
    if missing:
        raise metadata.error("tokenizer.ggml.tokens", f"without a token for the byte <0x{missing[0]:02X}>")
    scores = metadata.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise metadata.error("tokenizer.ggml.scores", f"but there are {len(tokens):,} tokens")
    apart = (UNKNOWN, CONTROL, USER_DEFINED)
    kept = {token: score for token, score, type_ in zip(tokens, scores, types, strict=True) if type_ not in apart}
    merges = list(islice(merges_of_scores(kept), MOST_MERGES + 1))
    _check_most(metadata, "tokenizer.ggml.scores", "merges of their tokens, at least", len(merges), MOST_MERGES)
    return merges


def _roles(metadata: Metadata, tokens: Sequence[str]) -> dict[str, str]:
    there = {role: key for role, key in ROLE_KEYS.items() if key in metadata}
    return {f"{role}_token": tokens[_role_id(metadata, key, len(tokens))] for role, key in there.items()}


def _role_id(metadata: Metadata, key: str, count: int) -> int:
    id_ = metadata.integer(key)
    if id_ >= count:
        raise metadata.error(key, f"but there are {count:,} tokens")
    return id_


def _adds(metadata: Metadata, role: str, roles: Mapping[str, str], default: bool) -> bool:
    key = f"tokenizer.ggml.add_{role}_token"
    known = f"{role}_token" in roles
    adds = metadata.flag(key, default and known)
    if adds and not known:
        raise metadata.error(key, f"but tokenizer.ggml.{role}_token_id is missing")
    return adds
