"""Adds tokens to a SentencePiece model: pieces learnt from texts, missing bytes, and words that somebody asks for."""

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
    """Adds tokens after the base's highest id: the bytes that it lacks, those that are learnt, words at last.

    Every byte of the base's model stays where it is, and pieces are appended, so that other programs read the result.

    - BPE gets pieces with lower and lower scores below all that there are, so they are made after all the old ones:
      texts are cut as before, with some tokens joined.
    - Unigram gets the same kind of pieces, each worth 0.01 more than the two of which it consists, yet never less than
      the model's least likely piece: below that it would change what unknown characters cost.
    - `request.words` become user-defined symbols in either: they are found anywhere, inside longer words too. Pieces
      would need others in between, which would change texts without these words.

    Args:
        base: The tokenizer; left as it is.
        texts: Iterated once.
        request: What to add.

    Raises:
        RequestError: Nothing is to be added, the texts hold nothing to learn, or the ids have gaps.
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
    """Returns pieces for the words that are not one token already.

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
    """Returns the model with the tokens beyond its pieces as pieces of it, under the ids that they have.

    Raises:
        RequestError: Their ids do not follow the model's without a gap.
    """
    size = len(base.proto.pieces)
    beyond = [token for token in base.added_tokens if token.id >= size]
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
    """What texts consist of.

    Attributes:
        tokenizer: What cut them; it has the words and the missing bytes, too.
        words: Stretches of pieces that may be joined, and how often they occur.
        tokens: Tokens of the texts.
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
    """Learns merges between the pieces that stand side by side; `proto` is what they are added to."""
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
    """The pieces that must not be made of a model's own.

    A model of merges would go on from a new piece to an old one that the new one begins or ends, and so cut a text
    otherwise that uses no new token. It can do so only if the old piece is none that its own text becomes: where that
    text stands between two cuts, its merges do not depend on what is around, so they would have made the old piece.
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
    """Returns the pieces that their own text does not become."""
    texts = [piece.text for piece in proto.pieces if piece.kind in (Kind.NORMAL, Kind.UNUSED)]
    cuts = SentencePieceProcessor(model_proto=proto.without_normalizer().data).encode(texts)
    return [text for text, ids in zip(texts, cuts, strict=True) if len(ids) > 1 or proto.pieces[ids[0]].text != text]


class _Joints:
    """Where two pieces may be joined at all: between normal ones, and not before a space that starts a word."""

    def __init__(self, proto: ModelProto) -> None:
        splits = proto.splits.get("whitespace", True) and not proto.whitespace_is_suffix
        normal = {id for id, piece in enumerate(proto.pieces) if piece.kind is Kind.NORMAL}
        self.spaces = {id for id in normal if splits and not proto.pieces[id].text.strip(_SPACE)}
        self.starts = {id for id in normal if splits and proto.pieces[id].text.startswith(_SPACE)}
        self.inner = normal - self.starts
        self.normal = normal


def _words(ids: Sequence[int], joints: _Joints) -> Iterator[Word]:
    """Yields the stretches of at least two pieces between which merges are possible."""
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
    """The model that is extended, and what is added to it.

    Attributes:
        base: The model, bytes included.
        merges: What was learnt.
        words: Words and their pieces, which come last.
    """

    base: ModelProto
    merges: tuple[Merge, ...]
    words: Mapping[str, Piece]

    @cached_property
    def learnt(self) -> dict[int, Merge]:
        """The merge that made each new piece."""
        first: dict[int, Merge] = {}
        for merge in self.merges:
            first.setdefault(merge.id, merge)
        return first

    @property
    def size(self) -> int:
        """Pieces afterwards."""
        return len(self.base.pieces) + len(self.learnt) + len(self.words)

    @property
    def proto(self) -> ModelProto:
        """The model afterwards."""
        scores = _falling_scores if self.base.model_type == "bpe" else _summed_scores
        learnt = self.learnt.values()
        new = [
            Piece(merge.piece, score, Kind.NORMAL)
            for merge, score in zip(learnt, scores(self.base, learnt), strict=True)
        ]
        return self.base.with_pieces([*new, *self.words.values()])


def _parts(base: SentencePieceTokenizer, draft: _Draft, id: int) -> Word:
    """Returns the base's ids that stood for a new one; none for a byte, or where the base lost such text."""
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
    """Yields float32 numbers, each the next one down, below every score that there is.

    Steps of one would not do: at -1e9 float32 numbers lie 64 apart.
    """
    score = min([-1.0, *(piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL)])
    (bits,) = struct.unpack("<I", struct.pack("<f", score))
    for step in range(1, len(merges) + 1):
        (score,) = struct.unpack("<f", struct.pack("<I", bits + step))  # of a negative number more bits are less
        yield score


def _summed_scores(proto: ModelProto, merges: Collection[Merge]) -> Iterator[float]:
    """Yields a little more than what both parts are worth together, inside the range that there is."""
    normal = [piece.score for piece in proto.pieces if piece.kind is Kind.NORMAL]
    lowest, highest = min(normal), max(normal)
    scores = {id: piece.score for id, piece in enumerate(proto.pieces)}
    for merge in merges:
        scores[merge.id] = min(max(scores[merge.left] + scores[merge.right] + _BONUS, lowest), highest)
        yield scores[merge.id]
