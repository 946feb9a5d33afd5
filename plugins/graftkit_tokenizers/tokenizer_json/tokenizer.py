"""Any tokenizer.json, through the `tokenizers` library, with user text kept apart from special tokens."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from graftkit import Encoding, TokenizerCapabilities
from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.tokenizer import PairLayout, Specials, StreamDecoder
from graftkit.tokenization.bounds import check_bounds
from graftkit.tokenization.panics import no_panic
from graftkit.tokenization.side_files import (
    chat_template_in,
    chat_templates_in,
    content_of,
    named_tokens,
    object_in,
    special_names,
    with_chat_template,
    write_files,
)
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from graftkit_tokenizers.formats.convert import write
from graftkit_tokenizers.formats.for_transformers import for_transformers
from graftkit_tokenizers.tokenizer_json.added_in_config import with_added_tokens, with_flags
from graftkit_tokenizers.tokenizer_json.certain_cuts import CertainCuts
from graftkit_tokenizers.tokenizer_json.fast import FastEncoder
from graftkit_tokenizers.tokenizer_json.lossless import keeps_every_text
from graftkit_tokenizers.tokenizer_json.put_around import around, bos_as_configured, pair_layout, with_true_flags
from graftkit_tokenizers.tokenizer_json.streaming import ByteStream, WindowStream, looks_back
from graftkit_tokenizers.tokenizer_json.token_bytes import BYTE_PIECE, TokenBytes

__all__ = ["HuggingFaceTokenizer"]


class HuggingFaceTokenizer:
    """A tokenizer.json with the files beside it.

    Args:
        files: Name -> bytes; kept, so that saving writes the same bytes.
        where: The folder, for errors.
        trainable: Whether the backend that made it can train one.
        spec: What the tokenizer.json says, where somebody knows; else it is parsed.

    Raises:
        ModelError: A file is malformed, or the library can't use the tokenizer.json.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        where: str = "tokenizer",
        *,
        trainable: bool = False,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        self._files = dict(files)
        self._where = where
        self._trainable = trainable
        self._spec = _in_current_form(object_in(self._files, "tokenizer.json", where) if spec is None else dict(spec))
        check_bounds(self._spec, where)
        self._spec |= {"truncation": None, "padding": None}  # saved with some tokenizers; they would cut records
        roles = object_in(self._files, "special_tokens_map.json", where)
        self._config = roles | object_in(self._files, "tokenizer_config.json", where)
        self._full = self._build(self._spec)
        self._check_added_ids()
        self._follow_the_configuration()
        self._controls: frozenset[str] = frozenset()
        self._variants: dict[frozenset[str], Backend] = {}
        self._fast = FastEncoder()
        self._known_bytes: dict[int, bytes] = {}

    @property
    def where(self) -> str:
        """The folder that it was loaded from, for errors."""
        return self._where

    @property
    def spec(self) -> Mapping[str, Any]:
        """The tokenizer.json in the library's current form, without truncation and padding."""
        return self._spec

    @property
    def is_byte_level(self) -> bool:
        """Whether its pieces are bytes, written in GPT-2's alphabet."""
        return self._bytes.is_byte_level

    def with_spec(self, spec: Mapping[str, Any]) -> HuggingFaceTokenizer:
        """Returns a tokenizer with another tokenizer.json, and the same files around it."""
        data = json.dumps(spec, ensure_ascii=False).encode("utf-8") + b"\n"
        files = with_added_tokens({**self._files, "tokenizer.json": data}, spec)
        return HuggingFaceTokenizer(files, self._where, trainable=self._trainable)

    def cut_words(self, words: Sequence[str]) -> list[list[int]]:
        """Returns the model's ids of words, which the pre-tokenizer has split off; none is a special token.

        The tokenizer that knows the special tokens is used where none comes out: then both give the same ids.
        """
        found = self._cut(self._full, words)
        special = {*self.special_tokens.values()}
        if all(special.isdisjoint(ids) for ids in found):
            return found
        return self._cut(self._variant("none"), words)

    def _cut(self, backend: Backend, words: Sequence[str]) -> list[list[int]]:
        with no_panic(self._where):
            encodings = Backend(backend.model).encode_batch_fast(list(words), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _build(self, spec: Mapping[str, Any]) -> Backend:
        with no_panic(self._where):
            return Backend.from_str(json.dumps(spec, ensure_ascii=False))

    def _follow_the_configuration(self) -> None:
        """Follows the configuration in what is special, and in whether the bos token stands before texts.

        The file is saved with the other post-processor, yet with its own flags: transformers reads the configuration.
        """
        flagged = with_flags(self._spec, special_names(self._config), self._full.token_to_id)
        if flagged is not None:
            self._spec, self._full = flagged, self._build(flagged)
            self._check_added_ids()
        with no_panic(self._where):
            changed = bos_as_configured(self._spec, self._config, self._full)
        if changed is not None:
            self._spec, self._full = changed, self._build(changed)
            self._files["tokenizer.json"] = json.dumps(changed, ensure_ascii=False).encode("utf-8") + b"\n"

    def _check_added_ids(self) -> None:
        """Refuses a file whose added tokens get other ids from the library than it lists."""
        for token in self._spec.get("added_tokens", []):
            given = self._full.token_to_id(token["content"])
            if given != token["id"]:
                raise ModelError(
                    f"tokenizer.json gives the added token {token['content']!r} the id {token['id']}, "
                    f"but its vocabulary makes it {given}",
                    where=self._where,
                )

    def _variant(self, specials: Specials) -> Backend:
        """Returns the tokenizer that recognises just these special tokens.

        One is built for each set: to switch `encode_special_tokens` of a shared one is not safe across threads.
        """
        if specials == "all":
            return self._full
        wanted = frozenset() if specials == "none" else frozenset(specials)
        unknown = wanted - self.special_tokens.keys()
        if unknown:
            raise RequestError(f"no special token of this tokenizer: {', '.join(sorted(unknown))}")
        if wanted not in self._variants:
            hidden = _hidden(self._flagged, wanted)
            make = self._with_renamed if _are_no_pieces(hidden, self._flagged["model"]) else self._rebuilt_with_renamed
            self._variants[wanted] = make(hidden)
        return self._variants[wanted]

    def _rebuilt_with_renamed(self, hidden: Mapping[str, str]) -> Backend:
        """Returns the tokenizer with other names for tokens that are pieces of its vocabulary."""
        return self._build(_with_renamed_pieces(self._flagged, hidden))

    def _with_renamed(self, hidden: Mapping[str, str]) -> Backend:
        """Returns it with other names for tokens that are no pieces: the vocabulary is shared, which may be large."""
        parts = {
            **self._flagged,
            "post_processor": None,
            "added_tokens": [],
            "model": {"type": "WordLevel", "vocab": {}},
        }
        parts["model"]["unk_token"] = ""
        bare = self._build(parts)
        with no_panic(self._where):
            found = Backend(self._full.model)
            for part in ("normalizer", "pre_tokenizer", "decoder"):
                if (own := getattr(bare, part)) is not None:
                    setattr(found, part, own)
            found.add_tokens([_added(token) for token in _renamed(self._flagged, hidden)])  # each call begins anew
        return found

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(self._full.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def model_type(self) -> str:
        """What kind of model the tokenizer.json holds: "BPE", "Unigram", "WordPiece" or "WordLevel"."""
        return str(self._spec["model"]["type"])

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids: of tokenizer.json, and those that the files beside it call special."""
        return {
            token["content"]: token["id"] for token in self._flagged.get("added_tokens", []) if token.get("special")
        }

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """The added tokens, special ones among them, and their ids."""
        return {token["content"]: token["id"] for token in self._spec.get("added_tokens", [])}

    @property
    def named_tokens(self) -> dict[str, str]:
        """The tokens that the configuration names: `bos_token`, ... -> text; unknown ones are left out."""
        named = named_tokens(self._config).items()
        return {name: token for name, token in named if self._full.token_to_id(token) is not None}

    def with_control_tokens(self, tokens: Collection[str]) -> HuggingFaceTokenizer:
        """Returns a tokenizer to which these added tokens are special, too; files and "all" ids stay the same."""
        other = copy.copy(self)
        for name in ("special_tokens", "fingerprint", "_flagged", "_cuts"):
            other.__dict__.pop(name, None)
        other._controls = frozenset(tokens) & self.added_tokens.keys()
        other._variants, other._fast = {}, FastEncoder()
        return other

    @cached_property
    def _flagged(self) -> dict[str, Any]:
        """The tokenizer.json with every special token flagged as one."""
        return with_flags(self._spec, self._controls, lambda name: None) or self._spec

    @cached_property
    def capabilities(self) -> TokenizerCapabilities:
        """What this tokenizer promises, as its tokenizer.json says."""
        whole = self._bytes.has_every_byte and keeps_every_text(self._spec)
        return TokenizerCapabilities(
            lossless_unicode=whole,
            lossless_bytes=whole,
            offsets=True,
            trainable=self._trainable,
            extendable=True,
            coarsening=self.model_type == "BPE",
        )

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the tokenizer.json without truncation and padding, and of what else is special."""
        import hashlib

        text = json.dumps(self._flagged, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def chat_template(self) -> str | None:
        """The template from its own file, or from the configuration."""
        return chat_template_in(self._files, self._where)

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """The templates by name; that which is used unless another one is named is "default"."""
        return chat_templates_in(self._files, self._where)

    def with_chat_template(self, template: str) -> HuggingFaceTokenizer:
        """Returns a tokenizer with this template, in the file in which this one has its own."""
        found = copy.copy(self)  # the vocabulary, and what is known of it, stays: nothing is parsed or built again
        for told in ("chat_template", "chat_templates"):
            found.__dict__.pop(told, None)
        found._files = with_chat_template(self._files, template, self._where)
        roles = object_in(found._files, "special_tokens_map.json", self._where)
        found._config = roles | object_in(found._files, "tokenizer_config.json", self._where)
        return found

    def role_token(self, role: Literal["bos", "eos", "pad", "unk"]) -> int | None:
        """Returns the id of the token with this role."""
        content = content_of(self._config.get(f"{role}_token"))
        return None if content is None else self._full.token_to_id(content)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the post-processor puts the `bos` token first: it does as the configuration says, if that says it."""
        bos = self.role_token("bos")
        return bos is not None and self.put_around[0][:1] == [bos]

    @cached_property
    def put_around(self) -> tuple[list[int], list[int]]:
        """The ids that the post-processor puts before a text, and those that it puts after it."""
        with no_panic(self._where):
            return around(self._full)

    @cached_property
    def pair_layout(self) -> PairLayout:
        """What the post-processor puts around the two texts of a pair."""
        with no_panic(self._where):
            return pair_layout(self._full, self._config, self._where)

    def encode(self, text: str, specials: Specials = "none") -> list[int]:
        """Returns the ids of one text."""
        with no_panic(self._where):
            return list(self._variant(specials).encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str], specials: Specials = "none") -> list[list[int]]:
        """Returns the ids of many texts; by fastokens where it is installed and was found to give the same ids."""
        if specials != "none":
            return self._encode_exactly(texts, specials)
        missing = self._bytes.missing if self._bytes.is_byte_level else b""
        return self._fast.encode_batch(texts, self._encode_exactly, self._flagged, _without_specials, missing)

    @property
    def encoder(self) -> str:
        """The library that large batches are encoded with: "tokenizers", or fastokens once it is in use."""
        return self._fast.name

    def _encode_exactly(self, texts: Sequence[str], specials: Specials = "none") -> list[list[int]]:
        with no_panic(self._where):
            encodings = self._variant(specials).encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_offsets(self, text: str, specials: Specials = "none") -> Encoding:
        """Returns the ids of one text with their offsets in it."""
        with no_panic(self._where):
            encoding = self._variant(specials).encode(text, add_special_tokens=False)
        return Encoding(list(encoding.ids), list(encoding.offsets))

    @property
    def cuts_at_specials(self) -> bool:
        """Whether the text between two special tokens always has the ids that it has alone."""
        return self._cuts.at_specials

    def cuts_between(self, before: str, after: str) -> bool:
        """Tells whether a text is always cut between a character and the one that follows it."""
        return self._cuts.between(before, after)

    @cached_property
    def _cuts(self) -> CertainCuts:
        return CertainCuts(self._flagged)

    def decode(self, ids: Sequence[int], *, skip_specials: bool = False) -> str:
        """Returns the text of these ids."""
        left_out = frozenset(self.special_tokens.values() if skip_specials else ())
        if not self._bytes.joins:
            known = [id for id in ids if 0 <= id < self.vocab_size and id not in left_out]
            with no_panic(self._where, "the tokenizers library can't decode these ids"):
                return str(self._full.decode(known, skip_special_tokens=skip_specials)) if known else ""
        shown = [id for id in ids if id not in left_out] if left_out else ids
        text = self._joined(shown, self.text_bytes).decode("utf-8", errors="replace")
        return self._bytes.start().push(text)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Returns the bytes of these ids."""
        return self._joined(ids, self.token_bytes)

    def _joined(self, ids: Sequence[int], unknown: Callable[[int], bytes]) -> bytes:
        """Returns the bytes of ids; `unknown` is called for those not in the cache."""
        known = self._known_bytes
        return b"".join([known[token] if token in known else unknown(token) for token in ids])

    def stream_decoder(self) -> StreamDecoder:
        """Returns a decoder that takes ids one by one."""
        if self._bytes.joins:
            return ByteStream(self.text_bytes, self._bytes.start())
        decoder = self._spec.get("decoder")
        if "ByteFallback" not in json.dumps(decoder):
            return WindowStream(self.decode, looks_back=looks_back(decoder))
        return WindowStream(self.decode, looks_back=looks_back(decoder), is_open=self._leaves_bytes_open)

    def _leaves_bytes_open(self, token: int) -> bool:
        """Tells whether a run of byte pieces may go on after this id: it is one of them, or no token at all."""
        piece = self._full.id_to_token(token) if 0 <= token < self.vocab_size else None
        return piece is None or BYTE_PIECE.fullmatch(piece) is not None

    @cached_property
    def _bytes(self) -> TokenBytes:
        return TokenBytes(self._spec, self._full.get_vocab(with_added_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of one id.

        Raises:
            IndexError: No such id.
        """
        if token not in self._known_bytes:
            piece = self._full.id_to_token(token) if 0 <= token < self.vocab_size else None
            if piece is None:
                raise IndexError(f"no token has the id {token}")
            self._known_bytes[token] = self._bytes.of(piece, added=token in self._added_ids)
        return self._known_bytes[token]

    def text_bytes(self, token: int) -> bytes:
        """Returns the bytes of one id; none for an id without a token, as padded embeddings have."""
        try:
            return self.token_bytes(token)
        except IndexError:
            return b""

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(self.added_tokens.values())

    def normalize(self, text: str) -> str:
        """Returns the text after the normalizer."""
        normalizer = self._full.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    def save(self, folder: Path, format: str = "huggingface") -> None:
        """Writes the files as they were loaded, changed only where AutoTokenizer would load another tokenizer.

        Where tokenizer_config.json says otherwise than tokenizer.json what is put around a text, it is mended.

        Raises:
            RequestError: There is no such format, or it can't represent this tokenizer.
        """
        files = self._files
        if format == "huggingface":
            files = for_transformers(files, self._spec, self._full.get_vocab(with_added_tokens=True), self._where)
        else:
            first = {} if self.role_token("bos") is None else {"add_bos_token": self.adds_bos}
            files = write(self._spec, self._config | first, self._files, format)
        if "tokenizer.json" in files:
            files = with_true_flags(files, self._config, self._full)
        write_files(files, folder)


def _in_current_form(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer.json as the library writes it today.

    In old files the model has no type, which its other fields tell, and each merge is one string.
    """
    model = spec.get("model")
    if not isinstance(model, dict):
        return spec
    signs = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
    guess = next((signs[sign] for sign in signs if sign in model), "WordLevel")
    current = {**model, "type": model.get("type") or guess}
    if isinstance(model.get("merges"), list):
        current["merges"] = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {**spec, "model": current}


def _without_specials(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tokenizer.json with special tokens renamed to random strings, so that no text becomes one."""
    return _with_renamed_pieces(spec, _hidden(spec, frozenset()))


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def _hidden(spec: Mapping[str, Any], keep: frozenset[str]) -> dict[str, str]:
    """Returns random strings for the special tokens of a tokenizer.json but some, so that no text becomes one.

    Without them, other added tokens would get their ids: the library numbers added tokens by counting. All begin alike,
    so that what the library searches a text with stays small.
    """
    secret = secrets.token_hex(16)
    return {
        token["content"]: f"\uffff{secret}{number:x}"
        for number, token in enumerate(spec.get("added_tokens", []))
        if token.get("special") and token["content"] not in keep
    }


def _renamed(spec: Mapping[str, Any], hidden: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {**token, "content": hidden.get(token["content"], token["content"])} for token in spec.get("added_tokens", [])
    ]


def _added(token: Mapping[str, Any]) -> AddedToken:
    """Returns an entry of `added_tokens` as the library takes it."""
    flags = {flag: token[flag] for flag in _FLAGS if flag in token}
    return AddedToken(token["content"], special=bool(token.get("special")), **flags)


def _are_no_pieces(tokens: Collection[str], model: Mapping[str, Any]) -> bool:
    """Tells whether a model's vocabulary has none of the tokens."""
    vocab = model.get("vocab") or ()
    pieces = vocab if isinstance(vocab, dict) else {entry[0] for entry in vocab}
    unknown = model.get("unk_token")  # of a model that has none, anything: nobody looks at it
    return not any(token == unknown or token in pieces for token in tokens)


def _with_renamed_pieces(spec: Mapping[str, Any], hidden: Mapping[str, str]) -> dict[str, Any]:
    """Returns a tokenizer.json with other names for tokens, in its vocabulary, too."""
    model = dict(spec["model"])
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {hidden.get(piece, piece): id for piece, id in model["vocab"].items()}
    elif isinstance(model.get("vocab"), list):  # Unigram: pieces with scores
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    if hidden and model["type"] == "BPE":
        prefix = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left not in hidden and right not in hidden and left + right[len(prefix) :] not in hidden
        ]
    if isinstance(model.get("unk_token"), str):  # a model that has none may have anything there
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    return {**spec, "added_tokens": _renamed(spec, hidden), "model": model, "post_processor": None}
