"""A SentencePiece model as a tokenizer: the library's ids, and special tokens only where they are asked for."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from graftkit import Encoding, TokenizerCapabilities
from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.tokenizer import Specials
from graftkit.tokenization.bounds import check_charsmap
from graftkit.tokenization.side_files import chat_template_in, chat_templates_in, named_tokens, with_chat_template
from sentencepiece import SentencePieceProcessor

from graftkit_sentencepiece.cutting import Stretch, TokenFinder
from graftkit_sentencepiece.decoding import PieceStream, TokenText
from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.proto import Kind, ModelProto
from graftkit_sentencepiece.roles import AddedToken, read_roles
from graftkit_sentencepiece.saving import FORMATS, save_files, tokenizer_json

__all__ = ["SentencePieceTokenizer"]


class SentencePieceTokenizer:
    """A `.model` and the files beside it.

    A text without special or added tokens is encoded as by `SentencePieceProcessor.encode`. Where it has some, each
    part between them is encoded on its own, with the model's leading space; with `"legacy": false` in
    tokenizer_config.json only the start of the text gets that space.

    Args:
        files: The files' bytes, kept as they are.
        controls: Tokens that are special, too, whatever the files say.

    Raises:
        ModelError: A file is malformed.
    """

    def __init__(self, files: SentencePieceFiles, controls: frozenset[str] = frozenset()) -> None:
        self.files, self._controls = files, controls
        self.proto = ModelProto.read(files.model, files.where)
        if self.proto.denormalizes:
            raise ModelError("models that change what they decode (denormalizer_spec) can't be used", where=files.where)
        check_charsmap(self.proto.charsmap, files.where)
        self._roles = read_roles(self.proto, files, controls)
        self._hidden = _hidden(self.proto, self._roles.added)
        self._start = _processor(self._hidden, files.where)
        self._finders: dict[frozenset[str], TokenFinder] = {}

    def __reduce__(self) -> tuple[type[SentencePieceTokenizer], tuple[SentencePieceFiles, frozenset[str]]]:
        """Copies and pickles are made of the files."""
        return type(self), (self.files, self._controls)

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(len(self.proto.pieces), max((token.id for token in self._roles.added), default=-1) + 1)

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids: control symbols, the unknown piece, and what the configuration adds."""
        return self._roles.specials

    @property
    def added(self) -> tuple[AddedToken, ...]:
        """The tokens that are found in a text before the model encodes the rest, special or not."""
        return self._roles.added

    @property
    def added_tokens(self) -> dict[str, int]:
        """Those tokens and their ids."""
        return {token.content: token.id for token in self._roles.added}

    @property
    def named_tokens(self) -> dict[str, str]:
        """The tokens that the configuration names: `bos_token`, ... -> text; unknown ones are left out."""
        named = named_tokens(self.files.json("special_tokens_map.json") | self.files.json("tokenizer_config.json"))
        return {name: token for name, token in named.items() if token in self.special_tokens}

    def with_control_tokens(self, tokens: Collection[str]) -> SentencePieceTokenizer:
        """Returns a tokenizer to which these added tokens are special, too; files and "all" ids stay the same."""
        return type(self)(self.files, frozenset(tokens) & self.added_tokens.keys())

    @cached_property
    def capabilities(self) -> TokenizerCapabilities:
        """What the model promises; never every text, since ▁ is decoded to a space."""
        return TokenizerCapabilities(
            lossless_unicode=False,
            lossless_bytes=False,
            offsets=True,
            trainable=True,
            extendable=self.proto.model_type in ("bpe", "unigram"),
            coarsening=self.proto.model_type == "bpe",
        )

    @cached_property
    def fingerprint(self) -> str:
        """A sha256, in hex, of the pieces, the normalization rules and the added tokens."""
        proto, roles = self.proto, self._roles
        flags = (proto.byte_fallback, proto.whitespace_is_suffix, proto.adds_prefix, proto.trims_spaces)
        facts = (proto.model_type, flags, proto.escapes_spaces, roles.prefix_after_tokens, proto.unknown_surface)
        found = hashlib.sha256(repr(facts).encode())
        for token in roles.added:
            found.update(repr((token.content, token.id, token.special, token.lstrip, token.rstrip)).encode())
        for piece in proto.pieces:
            found.update(b"%d\0%s\0" % (piece.kind, piece.text.encode()) + struct.pack("<f", piece.score))
        found.update(proto.charsmap)
        return found.hexdigest()

    @cached_property
    def chat_template(self) -> str | None:
        """The template from its own file, or from the configuration."""
        return chat_template_in(self.files.beside, self.files.where)

    @property
    def chat_templates(self) -> dict[str, str]:
        """The templates by name; that which is used unless another one is named is "default"."""
        return chat_templates_in(self.files.beside, self.files.where)

    def with_chat_template(self, template: str) -> SentencePieceTokenizer:
        """Returns a tokenizer with this template, in the file in which this one has its own."""
        beside = with_chat_template(self.files.beside, template, self.files.where)
        return type(self)(replace(self.files, beside=beside))

    def role_token(self, role: Literal["bos", "eos", "pad", "unk"]) -> int | None:
        """Returns the id of the token with this role."""
        return self._roles.by_role.get(role)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the configuration, or the class that it names, puts the beginning-of-sequence token first."""
        return self._roles.adds_bos and self.role_token("bos") is not None

    def encode(self, text: str, specials: Specials = "none") -> list[int]:
        """Returns the ids of one text."""
        finder = self._finder(specials)
        if finder is None:
            return list(self._start.encode(text))
        return [id for stretch in finder.cut(text) for id in self._stretch(text, stretch)]

    def _stretch(self, text: str, stretch: Stretch) -> list[int]:
        if stretch.token is not None:
            return [stretch.token]
        return list(self._at(stretch).encode(text[stretch.start : stretch.end]))

    def _at(self, stretch: Stretch) -> Any:
        return self._start if not stretch.start or self._roles.prefix_after_tokens else self._inside

    @cached_property
    def _inside(self) -> Any:
        """The model without the space in front of a text."""
        hidden = self._hidden
        return _processor(hidden.without_prefix(), self.files.where) if hidden.adds_prefix else self._start

    def _finder(self, specials: Specials) -> TokenFinder | None:
        """Returns what finds these special tokens and the added ones that are not special, or None for nothing."""
        if specials not in ("none", "all"):
            unknown = frozenset(specials) - self.special_tokens.keys()
            if unknown:
                raise RequestError(f"no special token of this tokenizer: {', '.join(sorted(unknown))}")
        wanted = frozenset(self.special_tokens) if specials == "all" else frozenset(specials)
        wanted = frozenset() if specials == "none" else wanted
        if wanted not in self._finders:
            tokens = [token for token in self._roles.added if not token.special or token.content in wanted]
            self._finders[wanted] = TokenFinder(tokens)
        finder = self._finders[wanted]
        return finder if finder.tokens else None

    def encode_inside(self, text: str) -> list[int]:
        """Returns the ids of a text without a space in front, as where it stands inside another one."""
        return list(self._inside.encode(text))

    def encode_batch(self, texts: Sequence[str], specials: Specials = "none") -> list[list[int]]:
        """Returns the ids of many texts, several at a time where no token has to be found in them."""
        if self._finder(specials) is None:
            return [list(ids) for ids in self._start.encode(list(texts))]
        return [self.encode(text, specials) for text in texts]

    def encode_offsets(self, text: str, specials: Specials = "none") -> Encoding:
        """Returns the ids of one text with their places in it; all bytes of a character have the character's place."""
        finder = self._finder(specials)
        stretches = [Stretch(0, len(text), None)] if finder is None else finder.cut(text)
        found = Encoding([], [])
        for stretch in stretches:
            for id, start, end in self._placed(text, stretch):
                found.ids.append(id)
                found.offsets.append((start, end))
        return found

    def _placed(self, text: str, stretch: Stretch) -> Iterator[tuple[int, int, int]]:
        if stretch.token is not None:
            yield stretch.token, stretch.start, stretch.end
            return
        found = self._at(stretch).encode(text[stretch.start : stretch.end], return_type="offset_mapping")
        ends = [end for _, end in found["offsets"]]
        for place in reversed(range(len(ends) - 1)):
            start, end = found["offsets"][place]
            if start == end and self.proto.pieces[found["ids"][place]].kind is Kind.BYTE:
                ends[place] = ends[place + 1]  # the library gives a character's place to its last byte alone
        for id, (start, _), end in zip(found["ids"], found["offsets"], ends, strict=True):
            yield id, stretch.start + start, stretch.start + end

    def decode(self, ids: Sequence[int], *, skip_specials: bool = False) -> str:
        """Returns the text of these ids as sentencepiece decodes them: without the leading space that encoding adds.

        Special and added tokens become their text; the ids after one are decoded on their own, as `encode` encodes
        them. Where special tokens are skipped, the ids around them are decoded together.
        """
        left_out = frozenset(self.special_tokens.values()) if skip_specials else frozenset()
        stream = self.stream_decoder()
        shown = [stream.push(token) for token in ids if token not in left_out]
        return "".join([*shown, stream.finish()])

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Returns the bytes of these ids."""
        return b"".join(self.token_bytes(token) for token in ids)

    def stream_decoder(self) -> PieceStream:
        """Returns a decoder that takes ids one by one."""
        return PieceStream(
            self._text_of,
            drops_prefix=self.proto.adds_prefix,
            trims=self.proto.trims_spaces,
            restarts=self._roles.prefix_after_tokens,
        )

    def _text_of(self, token: int) -> TokenText:
        """Returns what an id contributes to a text; nothing for an id without a token, as padded embeddings have."""
        return self._texts.get(token, TokenText("", breaks=False))

    @cached_property
    def _texts(self) -> dict[int, TokenText]:
        texts = {id: TokenText(piece.text, is_piece=True) for id, piece in enumerate(self.proto.pieces)}
        for id, piece in enumerate(self.proto.pieces):
            if piece.kind is Kind.BYTE:
                texts[id] = TokenText("", byte=int(piece.text[3:5], 16))
        for token in self._roles.added:
            texts[token.id] = TokenText(token.content, breaks=True)
        unknown = next(id for id, piece in enumerate(self.proto.pieces) if piece.kind is Kind.UNKNOWN)
        texts[unknown] = TokenText(self.proto.unknown_surface)
        return texts

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of one id; ▁ of a piece is a space.

        Raises:
            IndexError: No such id.
        """
        found = self._texts.get(token)
        if found is None:
            raise IndexError(f"no token has the id {token}")
        if found.byte is not None:
            return bytes([found.byte])
        return (found.text.replace("▁", " ") if found.is_piece else found.text).encode()

    def normalize(self, text: str) -> str:
        """Returns the normalized text: ▁ for spaces, a leading one where the model adds it."""
        return str(self._start.normalize(text))

    @cached_property
    def _json(self) -> tuple[bytes | None, str]:
        return tokenizer_json(self)

    @property
    def tokenizer_json(self) -> bytes | None:
        """A tokenizer.json that gives the same ids, compared on thousands of texts, or None where none does."""
        return self._json[0]

    @property
    def json_refusal(self) -> str:
        """Why there is no such tokenizer.json; empty where there is one."""
        return self._json[1]

    def save(self, folder: Path, format: str = FORMATS[0]) -> None:
        """Writes tokenizer.model, its configuration and, where it gives the same ids, a tokenizer.json.

        Raises:
            RequestError: The format is unknown, or requires a tokenizer.json and none gives the same ids.
        """
        save_files(self, folder, format)


def _processor(proto: ModelProto, where: str) -> Any:
    """Returns the library's processor.

    Raises:
        ModelError: The library refuses the model.
    """
    try:
        return SentencePieceProcessor(model_proto=proto.data)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"sentencepiece can't use the model: {error}", where=where) from None


def _hidden(proto: ModelProto, added: Sequence[AddedToken]) -> ModelProto:
    """Returns the model with special pieces as control symbols, which no text is encoded to."""
    kinds: Mapping[int, Kind] = {
        token.id: Kind.CONTROL
        for token in added
        if token.special
        and token.id < len(proto.pieces)
        and proto.pieces[token.id].kind not in (Kind.CONTROL, Kind.UNKNOWN)
    }
    return proto.with_kinds(kinds)
