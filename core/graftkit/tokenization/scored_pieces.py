"""Merges of BPE as scores of pieces, and back: SentencePiece and llama.cpp keep scores, tokenizer.json merges.

With scores, of all neighbours that together are a piece those with the highest score are joined first, and the leftmost
of those with the same one. Source: sentencepiece's `bpe_model.cc`, llama.cpp's `llm_tokenizer_spm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["merges_of_scores", "scores_of_merges"]


def merges_of_scores(scores: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yields every pair of pieces that makes up a piece, by the descending score of that piece.

    Args:
        scores: Piece -> score.

    Example:
        >>> list(merges_of_scores({"a": 0, "b": 0, "ab": -1, "aba": -2}))
        [('a', 'b'), ('ab', 'a')]
    """
    for piece in sorted(scores, key=lambda piece: -scores[piece]):
        for place in range(1, len(piece)):  # written out: a vocabulary has millions of halves
            if (left := piece[:place]) in scores and (right := piece[place:]) in scores:
                yield left, right


def scores_of_merges(pieces: Iterable[str], merges: Iterable[Sequence[str]]) -> dict[str, float]:
    """Returns the scores that join pieces as merges do: 0 for those that nothing is joined to, below 0 for the others.

    Args:
        pieces: All pieces.
        merges: Pairs of pieces, the first to be joined first.

    Raises:
        ValueError: No scores do: two neighbours that are a piece together are no merge, or merges that make one piece
            have those of another between them.
    """
    scores = dict.fromkeys(pieces, 0.0)
    joined: set[tuple[str, str]] = set()
    last = ""
    for left, right in merges:
        joined.add((left, right))
        if left + right != last and scores[left + right]:
            raise ValueError(f"merges that make {left + right!r} have merges of other pieces between them")
        last = left + right
        scores[last] = scores[last] or -float(len(joined))
    for piece in scores:
        for left, right in _halves(piece):
            if left in scores and right in scores and (left, right) not in joined:
                raise ValueError(f"{left!r} and {right!r} are not merged, though {piece!r} is a piece")
    return scores


def _halves(piece: str) -> Iterator[tuple[str, str]]:
    for place in range(1, len(piece)):
        yield piece[:place], piece[place:]
