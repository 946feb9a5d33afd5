"""Adds tokens to a SentencePiece model: the bytes that it lacks, pieces learnt from texts, and requested words."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec, NewToken
from graftkit.tokenization.continued_bpe import Limits, Merge, learn_merges
from graftkit.tokenization.spooling import spooled
from graftkit.tokenization.words import check_word
from sentencepiece import SentencePieceProcessor

from graftkit_sentencepiece.proto import Kind, ModelProto, Piece
from graftkit_sentencepiece.rules import PieceRules, beginnings_and_ends
from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer

__all__ = ["extend"]

_SPACE = "▁"
_BONUS = 0.01
_BATCH = 256

Word = tuple[int, ...]


def extend(base: SentencePieceTokenizer, texts: Iterable[str], request: ExtensionSpec) -> ExtensionPlan:
    """Adds tokens after the base's highest id, in this order: missing bytes, learnt pieces, words.

    The pieces are appended to the base's protobuf message, whose bytes stay as they are, so that any program that runs
    SentencePiece models reads the result.

    - Pieces of a BPE model get scores below those of all old pieces, so that they are merged last: a text is cut as
      before, with some tokens joined.
    - A piece of a Unigram model scores 0.01 more than the two pieces that it joins, and at least as much as the lowest
      old piece: a lower score would change the penalty of unknown characters, which depends on the lowest.
    - `request.words` become user-defined symbols, which are found anywhere, inside longer words too. As normal pieces
      they would need intermediate merges, which would change texts without these words.

    Args:
        base: The tokenizer; left as it is.
        texts: The corpus; iterated once, kept in a temporary file.
        request: What to add.

    Raises:
        RequestError: Nothing is to be added, the texts hold no frequent pair, a word can't become a token, or the ids
            of the base's added tokens have gaps.
    """
    if not base.capabilities.extendable:
        raise RequestError(f"a SentencePiece model of the type '{base.proto.model_type}' can't be extended")
    words = _new_words(base, request.words)
    rest = _with_added(base)
    proto = _with_bytes(rest) if request.missing_bytes and not rest.byte_fallback else rest
    with spooled(texts) as again:
        corpus = _Corpus.of(_tokenizer(base, proto.with_pieces(words.values())), again)
        same = proto is rest and not words
        before = corpus.tokens if same else _counted(base, again).total()
        draft = _Draft(proto, _learn(corpus, proto, request), words)
        if draft.size == base.vocab_size:
            raise RequestError("there is nothing to add to this tokenizer", hint="Ask for tokens.")
        extended = _tokenizer(base, draft.proto)
        after = _counted(extended, again)
    tokens = tuple(
        NewToken(id, extended.token_bytes(id), _parts(base, draft, id), after[id])
        for id in range(base.vocab_size, draft.size)
    )
    return ExtensionPlan(extended, tokens, base.capabilities.coarsening and same, before, after.total())


def _tokenizer(base: SentencePieceTokenizer, proto: ModelProto) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(replace(base.files, model=proto.data))


def _counted(tokenizer: SentencePieceTokenizer, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for ids in _encoded(tokenizer, texts):
        counts.update(ids)
    return counts


def _encoded(tokenizer: SentencePieceTokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Encodes texts some at a time, so that the library may use its threads."""
    source = iter(texts)
    while batch := list(islice(source, _BATCH)):
        yield from tokenizer.encode_batch(batch)


def _new_words(base: SentencePieceTokenizer, words: Iterable[str]) -> dict[str, Piece]:
    """Returns a piece for each word that is not a single token of the base.

    Raises:
        RequestError: One can't become a token.
    """
    unknown = base.role_token("unk")
    taken = {piece.text for piece in base.proto.pieces}
    new = {}
    for word in words:
        _check_word(base, word)
        if any(len(ids) == 1 and ids != [unknown] for ids in (base.encode(word), base.encode_inside(word))):
            continue
        new[word] = Piece(word.replace(" ", _SPACE), 0.0, Kind.USER_DEFINED)
        if new[word].text in taken:
            raise RequestError(f"{word!r} can't become a token: it is a piece already, which texts are not cut into")
    return new


def _check_word(base: SentencePieceTokenizer, word: str) -> None:
    check_word(word, base.special_tokens)
    wrong = {
        "it is empty": not word.strip(),
        "the format knows no character zero": "\0" in word,
    }
    for reason, is_so in wrong.items():
        if is_so:
            raise RequestError(f"{word!r} can't become a token: {reason}")


def _with_added(base: SentencePieceTokenizer) -> ModelProto:
    """Returns the model with the added tokens beyond its pieces as pieces, under the same ids.

    Raises:
        RequestError: Their ids do not follow the model's without a gap.
    """
    size = len(base.proto.pieces)
    beyond = [token for token in base.added if token.id >= size]
    if [token.id for token in beyond] != list(range(size, size + len(beyond))):
        raise RequestError("the ids of this tokenizer's added tokens have gaps, so that pieces can't follow them")
    kinds = {True: Kind.CONTROL, False: Kind.UNUSED}
    return base.proto.with_pieces(Piece(token.content, 0.0, kinds[token.special]) for token in beyond)


def _with_bytes(proto: ModelProto) -> ModelProto:
    if any(piece.text.startswith("<0x") for piece in proto.pieces):
        raise RequestError(
            "this model has pieces called as bytes are, so it can't get any", hint="missing_bytes: false"
        )
    return proto.with_byte_fallback()


@dataclass(frozen=True)
class _Corpus:
    """The corpus as the base, with the words and the missing bytes added, encodes it.

    Attributes:
        tokenizer: The tokenizer that encoded it.
        words: Sequence of ids that may be merged -> how often it occurs.
        tokens: The number of tokens.
    """

    tokenizer: SentencePieceTokenizer
    words: Mapping[Word, int]
    tokens: int

    @classmethod
    def of(cls, tokenizer: SentencePieceTokenizer, texts: Iterable[str]) -> _Corpus:
        words: Counter[Word] = Counter()
        joints, tokens = _Joints(tokenizer.proto), 0
        for ids in _encoded(tokenizer, texts):
            tokens += len(ids)
            words.update(_words(ids, joints))
        return cls(tokenizer, words, tokens)


def _learn(corpus: _Corpus, proto: ModelProto, request: ExtensionSpec) -> tuple[Merge, ...]:
    """Learns merges of neighbouring pieces, to be added to `proto`."""
    if not request.tokens:
        return ()
    pieces = {id: piece.text for id, piece in enumerate(proto.pieces)}
    forbidden = _Forbidden(corpus.tokenizer.proto)
    limits = Limits(request.tokens, request.min_frequency, request.max_length, forbidden)
    found = learn_merges(sorted(corpus.words.items()), pieces, limits, first_id=len(pieces)).merges
    if not found:
        raise RequestError("the texts hold nothing to learn", hint="Give more text, or a lower min_frequency.")
    return found


class _Forbidden:
    """The pieces that must not be learnt; asked with `in`.

    A BPE model could merge a new piece further, into an old piece that begins or ends with it, and so cut a text
    differently that has no new token in it. That is possible only for an old piece that encoding its own text does not
    give: where a text stands between two cuts, its merges do not depend on its neighbours, so the old piece would have
    been merged before. So beginnings and ends of such pieces are excluded.
    """

    def __init__(self, proto: ModelProto) -> None:
        self._rules = PieceRules(proto)
        self._taken: Collection[str] = beginnings_and_ends(_unreachable(proto)) if proto.model_type == "bpe" else ()
        self._pieces = {piece.text for piece in proto.pieces}

    def __contains__(self, piece: object) -> bool:
        return (
            not isinstance(piece, str) or piece in self._taken or piece in self._pieces or not self._rules.allow(piece)
        )


def _unreachable(proto: ModelProto) -> list[str]:
    """Returns the pieces that encoding their own text does not give."""
    texts = [piece.text for piece in proto.pieces if piece.kind in (Kind.NORMAL, Kind.UNUSED)]
    cuts = SentencePieceProcessor(model_proto=proto.without_normalizer().data).encode(texts)
    return [text for text, ids in zip(texts, cuts, strict=True) if len(ids) > 1 or proto.pieces[ids[0]].text != text]


class _Joints:
    """Between which ids a merge is possible: between normal pieces, and not before a ▁ that starts a word."""

    def __init__(self, proto: ModelProto) -> None:
        splits = proto.splits.get("whitespace", True) and not proto.whitespace_is_suffix
        normal = {id for id, piece in enumerate(proto.pieces) if piece.kind is Kind.NORMAL}
        self.spaces = {id for id in normal if splits and not proto.pieces[id].text.strip(_SPACE)}
        self.starts = {id for id in normal if splits and proto.pieces[id].text.startswith(_SPACE)}
        self.inner = normal - self.starts
        self.normal = normal


def _words(ids: Sequence[int], joints: _Joints) -> Iterator[Word]:
    """Yields the sequences of two or more ids between which merges are possible."""
    start = 0
    for place, id in enumerate(ids):
        if id in joints.inner or (id in joints.spaces and place > start and ids[place - 1] in joints.spaces):
            continue
        if place - start > 1:
            yield tuple(ids[start:place])
        start = place if id in joints.normal else place + 1
    if len(ids) - start > 1:
        yield tuple(ids[start:])


@dataclass(frozen=True)
class _Draft:
    """The extended model before it is written.

    Attributes:
        base: The model, with the missing bytes.
        merges: The merges that were learnt.
        words: Word -> its piece; these get the highest ids.
    """

    base: ModelProto
    merges: tuple[Merge, ...]
    words: Mapping[str, Piece]

    @cached_property
    def learnt(self) -> dict[int, Merge]:
        """Id of each learnt piece -> the merge that made it."""
        first: dict[int, Merge] = {}
        for merge in self.merges:
            first.setdefault(merge.id, merge)
        return first

    @property
    def size(self) -> int:
        """The number of pieces of the extended model."""
        return len(self.base.pieces) + len(self.learnt) + len(self.words)

    @property
    def proto(self) -> ModelProto:
        """The extended model."""
        scores = _falling_scores if self.base.model_type == "bpe" else _summed_scores
        learnt = self.learnt.values()
        new = [
            Piece(merge.piece, score, Kind.NORMAL)
            for merge, score in zip(learnt, scores(self.base, learnt), strict=True)
        ]
        return self.base.with_pieces([*new, *self.words.values()])


def _parts(base: SentencePieceTokenizer, draft: _Draft, id: int) -> Word:
    """Returns the base's ids of a new token's text; none for a byte, or where the base encodes it as unknown."""
    merge = draft.learnt.get(id)
    if merge:
        return _parts(base, draft, merge.left) + _parts(base, draft, merge.right)
    if id < base.vocab_size:
        return (id,)
    if id < len(draft.base.pieces):
        return ()
    word = list(draft.words)[id - draft.size + len(draft.words)]
    parts = base.encode_inside(word)
    return () if base.role_token("unk") in parts else tuple(parts)


def _falling_scores(proto: ModelProto, merges: Collection[Merge]) -> Iterator[float]:
    """Yields scores below every old one, each the next lower float32.

    Steps of 1 would not do: at -1e9, neighbouring float32 numbers are 64 apart. The next lower of a negative float is
    the next higher integer of the same bits.
    """
    score = min([-1.0, *(piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL)])
    (bits,) = struct.unpack("<I", struct.pack("<f", score))
    for step in range(1, len(merges) + 1):
        (score,) = struct.unpack("<f", struct.pack("<I", bits + step))
        yield score


def _summed_scores(proto: ModelProto, merges: Collection[Merge]) -> Iterator[float]:
    """Yields the sum of both parts' scores plus 0.01, clipped to the range of the old scores."""
    normal = [piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL]
    lowest, highest = min(normal), max(normal)
    scores = {id: piece.score for id, piece in enumerate(proto.pieces)}
    for merge in merges:
        scores[merge.id] = min(max(scores[merge.left] + scores[merge.right] + _BONUS, lowest), highest)
        yield scores[merge.id]
