"""Reads a SentencePiece `.model` and checks it before the library does.

The format is `sentencepiece_model.proto` of the sentencepiece project: a ModelProto with pieces, the trainer's
specification and the normalizer's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from graftkit.errors import ModelError
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN, MOST_IDS
from graftkit.tokenization.byte_alphabet import BYTE_PIECES

from graftkit_sentencepiece.wire import (
    BYTES,
    FLOAT,
    VARINT,
    WireError,
    fields,
    write_bytes,
    write_float,
    write_varint,
)

__all__ = ["SIZE_LIMIT", "Kind", "ModelProto", "Piece", "looks_like_proto"]

SIZE_LIMIT = 64 * 2**20
"""The most bytes that a `.model` may have. The largest in use, with 262,144 pieces, has 7 MB."""

_MOST_VALUES = 200_000
_MOST_OTHERS = 1_000
_MOST_OF_A_PIECE = 16
_PIECES, _TRAINER, _NORMALIZER, _SELF_TEST, _DENORMALIZER = 1, 2, 3, 4, 5
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_FLOAT = struct.Struct("<f")


class Kind(IntEnum):
    """What a piece is, by the numbers of the format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_KINDS = {int(kind): kind for kind in Kind}


class Piece(NamedTuple):
    """One piece of the vocabulary; its index there is its id.

    Attributes:
        text: The piece, with ▁ for a space.
        score: The priority of a BPE merge, highest first, or the log-probability of a Unigram piece.
        kind: Its type.
    """

    text: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class ModelProto:
    """A model.

    Attributes:
        data: The file's bytes.
        pieces: The vocabulary.
        model_type: "unigram", "bpe", "word" or "char".
        byte_fallback: Whether characters without a piece become bytes.
        whitespace_is_suffix: Whether ▁ ends a word instead of starting it.
        splits: Which of the trainer's splitting rules were on: "unicode_script", "number", "whitespace", "digits",
            "whitespace_only_pieces" -> bool.
        longest_piece: The most characters of a piece, as the model was trained.
        unknown_surface: What the unknown piece is decoded to.
        role_pieces: "unk", "bos", "eos", "pad" -> the piece with this role, where there is one.
        charsmap: The compiled normalization rules; empty for none.
        adds_prefix: Whether a space is put before a text.
        trims_spaces: Whether leading and trailing spaces are removed and runs of spaces become one.
        escapes_spaces: Whether a space becomes ▁.
        denormalizes: Whether decoded text is changed by rules (`denormalizer_spec`).
    """

    data: bytes
    pieces: tuple[Piece, ...]
    model_type: str = "unigram"
    byte_fallback: bool = False
    whitespace_is_suffix: bool = False
    splits: Mapping[str, bool] = field(default_factory=dict)
    longest_piece: int = 16
    unknown_surface: str = " \u2047 "
    role_pieces: Mapping[str, str] = field(default_factory=dict)
    charsmap: bytes = b""
    adds_prefix: bool = True
    trims_spaces: bool = True
    escapes_spaces: bool = True
    denormalizes: bool = False

    @classmethod
    def read(cls, data: bytes, where: str) -> ModelProto:
        """Reads a model.

        Args:
            data: The file's bytes.
            where: The file, for errors.

        Raises:
            ModelError: It is no SentencePiece model, or contradicts itself.
        """
        try:
            return _checked(_read(data))
        except (WireError, UnicodeDecodeError) as error:
            hint = "The file is damaged or of another kind: download it again, or name the backend that it is for."
            raise ModelError(f"this is no SentencePiece model: {error}", where=where, hint=hint) from None

    def with_pieces(self, new: Iterable[Piece]) -> ModelProto:
        """Returns the model with pieces appended after the last one; the old bytes stay, and so do all ids."""
        added = tuple(new)
        return _read(self.data + b"".join(map(_written, added)))

    def with_byte_fallback(self) -> ModelProto:
        """Returns the model with the 256 bytes appended, for the characters that have no piece."""
        new = (Piece(text, 0.0, Kind.BYTE) for text in BYTE_PIECES)
        on = write_bytes(_TRAINER, write_varint(35, 1))
        return replace(self, data=self.data + on).with_pieces(new)

    def with_kinds(self, kinds: Mapping[int, Kind]) -> ModelProto:
        """Returns the model with some pieces of another kind: id -> kind."""
        if not kinds:
            return self
        pieces = tuple(piece._replace(kind=kinds.get(id, piece.kind)) for id, piece in enumerate(self.pieces))
        return replace(self, pieces=pieces, data=b"".join(map(_written, pieces)) + self._without(_PIECES))

    def without_normalizer(self) -> ModelProto:
        """Returns the model without normalization, prefix and trimming."""
        off = b"".join([write_bytes(2, b""), *(write_varint(number, 0) for number in (3, 4))])
        data = self.data + write_bytes(_NORMALIZER, off)
        return replace(self, charsmap=b"", adds_prefix=False, trims_spaces=False, data=data)

    def without_prefix(self) -> ModelProto:
        """Returns the model without the leading space; of repeated fields of a message the last one counts."""
        off = write_bytes(_NORMALIZER, write_varint(3, 0))
        return replace(self, adds_prefix=False, data=self.data + off)

    def _without(self, left_out: int) -> bytes:
        """Returns the message without the fields of one number, the others byte by byte."""
        kept, place = bytearray(), 0
        for number, kind, start, end in fields(self.data):
            if kind != BYTES:
                raise WireError(f"field {number} is of the type {kind}")
            if number != left_out:
                kept += write_bytes(number, self.data[start:end])
            place = end
        assert place == len(self.data)
        return bytes(kept)


def looks_like_proto(start: bytes) -> bool:
    """Tells from a file's first bytes whether it may be a model: whether a piece comes first.

    Example:
        >>> looks_like_proto(b"IQ== 0")  # a tiktoken file, which may be called tokenizer.model too
        False
    """
    if start[:1] != b"\x0a":
        return False
    try:
        number, kind, first, last = next(fields(start))
        inner, inner_kind, left, right = next(fields(start, first, last))
        start[left:right].decode()
    except (WireError, UnicodeDecodeError, StopIteration):
        return False
    return (number, kind, inner, inner_kind) == (_PIECES, BYTES, _TEXT, BYTES)


def _read(data: bytes) -> ModelProto:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    denormalizer: dict[int, int | bytes] = {}
    into = {_TRAINER: trainer, _NORMALIZER: normalizer, _DENORMALIZER: denormalizer}
    for count, (number, kind, start, end) in enumerate(fields(data)):
        if kind != BYTES or count - len(pieces) > _MOST_OTHERS:
            raise WireError(f"its field {number} is of the type {kind}, or it has too many")
        if number == _PIECES:
            pieces.append(_piece(data, start, end, len(pieces)))
        elif number in into:
            into[number] |= _values(data, start, end)
    return _model(data, tuple(pieces), trainer, normalizer, bool(denormalizer.get(2)))


def _piece(data: bytes, start: int, end: int, id: int) -> Piece:
    text, score, kind = "", 0.0, 1
    for number, wire, first, last in islice(fields(data, start, end), _MOST_OF_A_PIECE):
        if number == _TEXT and wire == BYTES:
            text = data[first:last].decode()
        elif number == _SCORE and wire == FLOAT:
            score = _FLOAT.unpack_from(data, first)[0]
        elif number == _KIND and wire == VARINT:
            kind = first
    if not text or not math.isfinite(score) or kind not in _KINDS:
        raise WireError(f"piece {id} is {text!r} with the score {score} and the type {kind}")
    if id >= MOST_IDS:
        raise WireError(f"it has more than {MOST_IDS:,} pieces")
    _check_length(text, f"piece {id}")
    return Piece(text, score, _KINDS[kind])


def _check_length(text: str, what: str) -> None:
    if len(text) > LONGEST_TOKEN:
        raise WireError(f"{what} has {len(text):,} characters; {LONGEST_TOKEN:,} are read")


def _values(data: bytes, start: int, end: int) -> dict[int, int | bytes]:
    """Returns the varints and byte strings of a message by field number; floats are skipped."""
    found: dict[int, int | bytes] = {}
    for count, (number, kind, first, last) in enumerate(fields(data, start, end)):
        if count > _MOST_VALUES:
            raise WireError(f"a specification has more than {_MOST_VALUES:,} values")
        if kind == VARINT:
            found[number] = first
        elif kind == BYTES:
            found[number] = data[first:last]
    return found


def _model(
    data: bytes,
    pieces: tuple[Piece, ...],
    trainer: Mapping[int, int | bytes],
    normalizer: Mapping[int, int | bytes],
    denormalizes: bool,
) -> ModelProto:
    def flag(values: Mapping[int, int | bytes], number: int, default: bool) -> bool:
        return bool(values.get(number, default))

    def text(number: int, default: str) -> str:
        value = trainer.get(number, default)
        found = value.decode() if isinstance(value, bytes) else default
        _check_length(found, "a text for special pieces")
        return found

    model_type, longest = trainer.get(3, 1), trainer.get(20, 16)
    charsmap = normalizer.get(2, b"")
    if model_type not in _MODEL_TYPES or not isinstance(longest, int) or not isinstance(charsmap, bytes):
        raise WireError(f"its model type is {model_type!r}, its longest piece {longest!r}")
    return ModelProto(
        data=data,
        pieces=pieces,
        model_type=_MODEL_TYPES[int(model_type)],
        byte_fallback=flag(trainer, 35, False),
        whitespace_is_suffix=flag(trainer, 24, False),
        splits={
            "unicode_script": flag(trainer, 21, True),
            "whitespace": flag(trainer, 22, True),
            "number": flag(trainer, 23, True),
            "digits": flag(trainer, 25, False),
            "whitespace_only_pieces": flag(trainer, 26, False),
        },
        longest_piece=longest,
        unknown_surface=text(44, " \u2047 "),
        role_pieces={
            "unk": text(45, "<unk>"),
            "bos": text(46, "<s>"),
            "eos": text(47, "</s>"),
            "pad": text(48, "<pad>"),
        },
        charsmap=charsmap,
        adds_prefix=flag(normalizer, 3, True),
        trims_spaces=flag(normalizer, 4, True),
        escapes_spaces=flag(normalizer, 5, True),
        denormalizes=denormalizes,
    )


def _checked(model: ModelProto) -> ModelProto:
    """Refuses what the library would: no or two unknown pieces, a piece twice, fallback without all bytes."""
    if len(model.data) > SIZE_LIMIT:
        raise WireError(f"it has {len(model.data):,} bytes, more than {SIZE_LIMIT:,}")
    if sum(piece.kind == Kind.UNKNOWN for piece in model.pieces) != 1:
        raise WireError("not exactly one of its pieces is the unknown one")
    if len({piece.text for piece in model.pieces}) != len(model.pieces):
        raise WireError("a piece is there twice")
    found = {piece.text for piece in model.pieces if piece.kind == Kind.BYTE}
    every = {*BYTE_PIECES}
    if found - every or (found and not model.byte_fallback) or (model.byte_fallback and found != every):
        raise WireError(f"it has {len(found & every)} of 256 byte pieces")
    return model


def _written(piece: Piece) -> bytes:
    """Returns a piece as a field of the model, the default type left out as protobuf does."""
    body = write_bytes(_TEXT, piece.text.encode()) + write_float(_SCORE, piece.score)
    if piece.kind != Kind.NORMAL:
        body += write_varint(_KIND, piece.kind)
    return write_bytes(_PIECES, body)
