"""Converts a SentencePiece model to a tokenizer.json, for programs that read only that.

The `tokenizers` library differs from sentencepiece in some ways: it applies normalization rules to whole graphemes,
finds added tokens before it prepends a space, and sums Unigram scores in float64. So a conversion is compared with the
model before it is used: see `proof`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graftkit.tokenization.scored_pieces import merges_of_scores
from graftkit.tokenization.tokenizer_json import added_token, template, tokenizer_json

from graftkit_sentencepiece.proto import Kind, ModelProto

if TYPE_CHECKING:
    from graftkit_sentencepiece.model import SentencePieceModel

__all__ = ["as_tokenizer_json"]

Json = dict[str, Any]

_SPACE = "▁"
_OUT_OF_REACH = 10_000.0
"""Subtracted from the lowest score for pieces that no text may be cut into."""


def as_tokenizer_json(tokenizer: SentencePieceModel) -> Json:
    """Returns the tokenizer.json of a model without a charsmap.

    Args:
        tokenizer: A BPE or Unigram model; one with normalization rules has no exact equivalent.
    """
    proto = tokenizer.proto
    return tokenizer_json(
        _bpe(proto) if proto.model_type == "bpe" else _unigram(proto),
        normalizer={"type": "Sequence", "normalizers": list(_normalizers(proto))},
        decoder={"type": "Sequence", "decoders": list(_decoders(proto))},
        post_processor=_post_processor(tokenizer),
        added_tokens=list(_added(tokenizer)),
    )


def _unknown(proto: ModelProto) -> int:
    return next(id for id, piece in enumerate(proto.pieces) if piece.kind is Kind.UNKNOWN)


def _bpe(proto: ModelProto) -> Json:
    normal = {piece.text: piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL}
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": proto.pieces[_unknown(proto)].text,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": proto.byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.text: id for id, piece in enumerate(proto.pieces)},
        "merges": [list(pair) for pair in merges_of_scores(normal)],
    }


def _unigram(proto: ModelProto) -> Json:
    lowest = min(piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL)
    beyond = lowest - _OUT_OF_REACH
    vocab = [[piece.text, piece.score if piece.kind is Kind.NORMAL else beyond] for piece in proto.pieces]
    return {"type": "Unigram", "unk_id": _unknown(proto), "vocab": vocab, "byte_fallback": proto.byte_fallback}


def _normalizers(proto: ModelProto) -> Iterator[Json]:
    if proto.trims_spaces:
        yield _replaced({"Regex": r"\A +|[ ▁]+\z"}, "")
        yield _replaced({"Regex": " +"}, " ")
    if proto.adds_prefix:
        yield {"type": "Prepend", "prepend": _SPACE}
    yield _replaced({"String": " "}, _SPACE)


def _replaced(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _decoders(proto: ModelProto) -> Iterator[Json]:
    yield _replaced({"String": _SPACE}, " ")
    if proto.byte_fallback:
        yield {"type": "ByteFallback"}
    yield {"type": "Fuse"}
    if proto.adds_prefix:
        yield {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _post_processor(tokenizer: SentencePieceModel) -> Json | None:
    bos = tokenizer.role_token("bos")
    if bos is None or not tokenizer.adds_bos:
        return None
    return template(before={text: id for text, id in tokenizer.special_tokens.items() if id == bos})


def _added(tokenizer: SentencePieceModel) -> Iterator[Json]:
    """Yields special, added and user-defined tokens, in the order of their ids."""
    entries = {
        token.id: added_token(token.id, token.content, special=token.special, lstrip=token.lstrip, rstrip=token.rstrip)
        for token in tokenizer.added
    }
    for id, piece in enumerate(tokenizer.proto.pieces):
        if piece.kind is Kind.USER_DEFINED and id not in entries:
            entries[id] = added_token(id, piece.text.replace(_SPACE, " "), special=False)
    yield from (entries[id] for id in sorted(entries))
