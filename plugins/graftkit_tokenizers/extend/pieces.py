"""Learns pieces for the families that have some: BPE, WordPiece and Unigram."""

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
    """Adds merges, which apply after all those that there are."""
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in draft.model["merges"]]
    pieces = draft.pieces
    for merge in _learnt(draft, words, limits):
        merges.append([pieces[merge.left], pieces[merge.right]])
        if merge.id == draft.next_id:
            pieces[draft.add_piece(merge.piece, (merge.left, merge.right))] = merge.piece
    draft.model["merges"] = merges


def learn_wordpiece(draft: Draft, words: Iterable[Cut], limits: Limits) -> None:
    """Adds pieces; the tokenizer takes the longest that fits, from the start of a word on.

    So that what is left of a word can always be cut, a character that is only part of longer pieces becomes one.
    """
    lacking, first = _lacking_characters(draft), draft.next_id
    for merge in _learnt(draft, words, limits):
        if merge.id == draft.next_id:
            draft.add_piece(merge.piece, (merge.left, merge.right))
    for character in lacking if draft.next_id > first else ():
        draft.add_piece(character, ())


def learn_unigram(draft: Draft, words: Iterable[Cut], limits: Limits) -> None:
    """Adds pieces that are worth a little more than the two of which each consists."""
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
    """Joins the pieces that stand side by side.

    What stands for an unknown character, or for a byte where bytes are only fallen back on, is never joined: the
    library could not write that as text again.
    """
    between = _between(words, _walls(draft))
    return learn_merges(between, draft.pieces, limits, first_id=draft.next_id, join=draft.join).merges


def _walls(draft: Draft) -> set[int]:
    names = BYTE_PIECES if draft.model.get("byte_fallback") else ()
    ids = {piece: id for id, piece in draft.pieces.items()}
    return {ids[name] for name in names if name in ids} | {id for id in (draft.unknown_id,) if id is not None}


def _between(words: Iterable[Cut], walls: Collection[int]) -> Iterator[Cut]:
    """Yields the stretches of each word that stand between walls."""
    for ids, count in words:
        start = 0
        for place, id in enumerate(ids):
            if id in walls:
                yield ids[start:place], count
                start = place + 1
        yield ids[start:], count


def _lacking_characters(draft: Draft) -> list[str]:
    """Returns the pieces of one character that WordPiece may need where a new piece ends inside an old one."""
    prefix = draft.prefix
    vocab = draft.model["vocab"]
    inner = {prefix + c for piece in vocab if piece not in draft.added for c in _after_the_first(piece, prefix)}
    return sorted(inner - set(vocab))


def _after_the_first(piece: str, prefix: str) -> str:
    return piece.removeprefix(prefix) if piece.startswith(prefix) else piece[1:]
