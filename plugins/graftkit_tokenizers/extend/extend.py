"""Adds tokens to a tokenizer.json: the bytes that it lacks, tokens learnt from texts, and requested words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec, NewToken
from graftkit.interfaces.vocabulary_limits import MOST_ADDED, MOST_PIECES
from graftkit.tokenization.continued_bpe import Limits
from graftkit.tokenization.spooling import spooled
from graftkit.tokenization.words import check_word

from graftkit_tokenizers.extend.count_words import Words, count_words
from graftkit_tokenizers.extend.draft import Draft
from graftkit_tokenizers.extend.missing_bytes import add_missing_bytes
from graftkit_tokenizers.extend.pieces import LEARN_PIECES, Cut
from graftkit_tokenizers.extend.word_level import learn_word_level

if TYPE_CHECKING:
    from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer

__all__ = ["extend"]


def extend(base: HuggingFaceTokenizer, texts: Iterable[str], request: ExtensionSpec) -> ExtensionPlan:
    """Adds tokens after the base's highest id, in this order: missing bytes, learnt tokens, words.

    - BPE gets merges that apply after all the old ones: a text is encoded as before, with some tokens joined.
    - WordPiece and Unigram get the pieces that such merges would make. A text with none of them is encoded as before.
    - A word-level tokenizer gets the most frequent words that it lacks.
    - `request.words` become added tokens, in every family: as pieces they would need intermediate merges, which would
      change texts without these words. They are found anywhere, inside longer words too. A tokenizer that puts `▁`
      before every part of a text, as Llama 2's does, puts one after such a token, too.

    Args:
        base: The tokenizer; left as it is.
        texts: The corpus; iterated once.
        request: What to add.

    Raises:
        RequestError: Nothing is to be added, a word can't become a token, the tokens are more than are read, or the
            texts hold nothing to learn.
    """
    draft = Draft(base.spec, base.vocab_size)
    joins = add_missing_bytes(draft, byte_level=base.is_byte_level) if request.missing_bytes else True
    words = _new_words(base, draft, request.words)
    _check(request.tokens, something=bool(request.tokens or draft.parts or words))
    _check_room(len(draft.model["vocab"]), request.tokens)
    _check_added(len(draft.added), len(words))
    corpus = _Corpus.of(base, draft, texts, words)
    _learn(draft, corpus, request)
    for word in words:
        draft.add_token(
            word, (id for id in base.encode(word) if id != draft.unknown_id), normalized=_in_any_case(draft)
        )
    return _plan(draft, base, corpus, coarsens=draft.family == "BPE" and joins and not words)


def _check(tokens: int, *, something: bool) -> None:
    if tokens < 0:
        raise RequestError(f"{tokens} tokens are to be learnt, which is fewer than no tokens")
    if not something:
        raise RequestError("there is nothing to add to this tokenizer", hint="Ask for tokens.")


def _check_room(pieces: int, tokens: int) -> None:
    """Refuses more tokens than a tokenizer.json is read with; words become added ones, which have room beside."""
    if pieces + tokens > MOST_PIECES:
        left = MOST_PIECES - pieces
        raise RequestError(
            f"{tokens:,} tokens after the {pieces:,} of the base's model are too many: it may have {MOST_PIECES:,}",
            hint=f"Ask for {left:,} tokens at most." if left > 0 else "Name words, which become added tokens.",
        )


def _check_added(added: int, words: int) -> None:
    """Refuses more words than a tokenizer.json is read with."""
    if added + words > MOST_ADDED:
        raise RequestError(
            f"{words:,} words beside the {added:,} added tokens of the base are too many: it may have {MOST_ADDED:,}",
            hint="Name fewer words, or ask for tokens, which are learnt.",
        )


def _new_words(base: HuggingFaceTokenizer, draft: Draft, words: Iterable[str]) -> list[str]:
    """Returns the words that are not a single token of the base.

    Raises:
        RequestError: One can't become a token.
    """
    for word in words:
        check_word(word, base.special_tokens)
    cuts = {word: base.encode(word) for word in words}
    new = [word for word, ids in cuts.items() if len(ids) != 1 or ids == [draft.unknown_id]]
    pieces = {*draft.pieces.values()} - draft.added if new else set()
    for word in new:
        if word in pieces:
            raise RequestError(f"{word!r} can't become a token: it is a piece already, which texts are not cut into")
        left = base.normalize(word) if _in_any_case(draft) else word
        if left != word and not left.strip():
            raise RequestError(f"{word!r} can't become a token: the tokenizer's normalizer leaves {left!r} of it")
    return new


def _in_any_case(draft: Draft) -> bool:
    """Tells whether added tokens are to be found in normalized text, as with WordPiece, which may lowercase."""
    return draft.family == "WordPiece"


@dataclass(frozen=True, slots=True)
class _Corpus:
    """The corpus as words.

    Attributes:
        words: The words, counted.
        cuts: Word -> the base's ids of it.
        base_tokens: The number of tokens of the corpus as the base encodes it.
    """

    words: Words
    cuts: Mapping[str, Sequence[int]]
    base_tokens: int

    @classmethod
    def of(cls, base: HuggingFaceTokenizer, draft: Draft, texts: Iterable[str], added: Sequence[str]) -> _Corpus:
        """Counts the words; a second time where words are added, since those split other words."""
        if not added:
            words = count_words(base.spec, texts, where=base.where)
            return cls(words, cuts := _cuts(base, words), _total(words, cuts))
        with spooled(texts) as again:
            before = count_words(base.spec, again, where=base.where)
            words = count_words(draft.with_tokens(added, normalized=_in_any_case(draft)), again, where=base.where)
        return cls(words, _cuts(base, words), _total(before, _cuts(base, before)))

    def cut(self) -> list[Cut]:
        """Returns each word's ids and how often it occurs."""
        return [(self.cuts[word], count) for word, count in self.words.counts.items()]


def _cuts(tokenizer: HuggingFaceTokenizer, words: Words) -> dict[str, list[int]]:
    return dict(zip(words.counts, tokenizer.cut_words(list(words.counts)), strict=True))


def _total(words: Words, cuts: Mapping[str, Sequence[int]]) -> int:
    return sum(len(cuts[word]) * count for word, count in words.counts.items()) + sum(words.added.values())


def _learn(draft: Draft, corpus: _Corpus, request: ExtensionSpec) -> None:
    limits = Limits(
        request.tokens, request.min_frequency, request.max_length, frozenset(draft.added | {*request.words})
    )
    before = draft.next_id
    if draft.family == "WordLevel":
        learn_word_level(draft, corpus.words.counts, limits)
    else:
        LEARN_PIECES[draft.family](draft, corpus.cut(), limits)
    if request.tokens and draft.next_id == before:
        raise RequestError("the texts hold nothing to learn", hint="Give more text, or a lower min_frequency.")


def _plan(draft: Draft, base: HuggingFaceTokenizer, corpus: _Corpus, *, coarsens: bool) -> ExtensionPlan:
    """Builds the extended tokenizer, and counts its tokens in the corpus."""
    extended = base.with_spec(draft.spec)
    cuts = _cuts(extended, corpus.words)
    uses: Counter[int] = Counter()
    for word, count in corpus.words.counts.items():
        for id in cuts[word]:
            uses[id] += count
    for token in draft.spec["added_tokens"]:
        uses[token["id"]] += corpus.words.added.get(token["content"], 0)
    tokens = tuple(NewToken(id, extended.token_bytes(id), parts, uses[id]) for id, parts in draft.parts.items())
    return ExtensionPlan(extended, tokens, coarsens, corpus.base_tokens, _total(corpus.words, cuts))
