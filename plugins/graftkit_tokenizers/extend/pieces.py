"""Learns pieces for BPE, WordPiece and Unigram models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from graftkit.tokenization.byte_alphabet import BYTE_PIECES
from graftkit.tokenization.continued_bpe import Limits, Merge, learn_merges

from graftkit_tokenizers.extend.draft import Draft

__all__ = ["LEARN_PIECES", "Cut", "learn_bpe", "learn_unigram", "learn_wordpiece"]

Cut = tuple[Sequence[int], int]
"""A word's ids and how often it occurs."""

_BONUS = 0.01


def learn_bpe(draft: Draft, words: Iterable[Cut], limits: Limits) -> None:
    """Adds merges, which apply after all the old ones."""
    merges = [*draft.model["merges"]]
    pieces = draft.pieces
    for merge in _learnt(draft, words, limits):
        merges.append([pieces[merge.left], pieces[merge.right]])
        if merge.id == draft.next_id:
            pieces[draft.add_piece(merge.piece, (merge.left, merge.right))] = merge.piece
    draft.model["merges"] = merges


def learn_wordpiece(draft: Draft, words: Iterable[Cut], limits: Limits) -> None:
    """Adds pieces; the tokenizer takes the longest one that fits, from the start of a word on.

    A character that occurs only inside longer pieces becomes a piece too, so that the rest of a word after a new piece
    can always be encoded.
    """
    lacking, first = _lacking_characters(draft), draft.next_id
    for merge in _learnt(draft, words, limits):
        if merge.id == draft.next_id:
            draft.add_piece(merge.piece, (merge.left, merge.right))
    for character in lacking if draft.next_id > first else ():
        draft.add_piece(character, ())


def learn_unigram(draft: Draft, words: Iterable[Cut], limits: Limits) -> None:
    """Adds pieces, each with the summed scores of the two that it joins, plus 0.01."""
    scores = [score for _, score in draft.model["vocab"]]
    for merge in _learnt(draft, words, limits):
        if merge.id == draft.next_id:
            scores.append(scores[merge.left] + scores[merge.right] + _BONUS)
            draft.add_piece(merge.piece, (merge.left, merge.right), score=scores[-1])


LEARN_PIECES: Mapping[str, Callable[[Draft, Iterable[Cut], Limits], None]] = {
    "BPE": learn_bpe,
    "WordPiece": learn_wordpiece,
    "Unigram": learn_unigram,
}
"""Type of a tokenizer.json's model -> what adds pieces to it."""


def _learnt(draft: Draft, words: Iterable[Cut], limits: Limits) -> tuple[Merge, ...]:
    """Learns merges of neighbouring pieces.

    The unknown token and the byte pieces of a model with byte fallback are never merged: the library could not decode
    the result.
    """
    between = _between(words, _never_merged(draft))
    return learn_merges(between, draft.pieces, limits, first_id=draft.next_id, join=draft.join).merges


def _never_merged(draft: Draft) -> set[int]:
    names = BYTE_PIECES if draft.model.get("byte_fallback") else ()
    ids = {piece: id for id, piece in draft.pieces.items()}
    return {ids[name] for name in names if name in ids} | {id for id in (draft.unknown_id,) if id is not None}


def _between(words: Iterable[Cut], never: Collection[int]) -> Iterator[Cut]:
    """Yields the parts of each word between ids that are never merged."""
    for ids, count in words:
        start = 0
        for place, id in enumerate(ids):
            if id in never:
                yield ids[start:place], count
                start = place + 1
        yield ids[start:], count


def _lacking_characters(draft: Draft) -> list[str]:
    """Returns the pieces of one character that WordPiece may need where a new piece ends inside an old one."""
    prefix, vocab, added = draft.prefix, draft.model["vocab"], draft.added
    inside = (p.removeprefix(prefix) if p.startswith(prefix) else p[1:] for p in vocab if p not in added)
    return sorted({prefix + character for part in inside for character in part} - set(vocab))
