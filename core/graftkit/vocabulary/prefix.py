"""Derives token counts of smaller extensions from those of the largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from graftkit.interfaces.vocabulary import NewToken

__all__ = ["PrefixCounter"]


class PrefixCounter:
    """Computes the counts of ids where only the first new tokens are learnt.

    In continued BPE each new token joins two earlier ones, and later merges only apply to what earlier ones left. So
    splitting the later tokens again gives the encoding with the earlier ones alone. Which two a token joins is found
    by applying the learnt merges, in their order, to the base's ids of its text.

    Args:
        tokens: The new tokens, in the order of their ids.

    Raises:
        ValueError: A token does not join exactly two others, so the tokens were not learnt by pair merges.
    """

    def __init__(self, tokens: Sequence[NewToken]) -> None:
        self._pairs: dict[int, tuple[int, int]] = {}
        self.learnt: list[int] = []
        ranks: dict[tuple[int, int], int] = {}
        for token in tokens:
            if len(token.parts) < 2:  # a missing byte, which every extension adds
                continue
            joined = _merge(token.parts, ranks)
            if len(joined) != 2:
                raise ValueError(f"token {token.id} joins {len(joined)} others")
            ranks[joined[0], joined[1]] = token.id
            self._pairs[token.id] = (joined[0], joined[1])
            self.learnt.append(token.id)

    def counts(self, counts: Mapping[int, int], learnt: int) -> dict[int, int]:
        """Returns id -> count with the first `learnt` tokens alone.

        Args:
            counts: Id -> count with all new tokens.
            learnt: How many tokens are learnt.
        """
        left = dict(counts)
        for id in reversed(self.learnt[learnt:]):
            times = left.pop(id, 0)
            for part in self._pairs[id] if times else ():
                left[part] = left.get(part, 0) + times
        return left


def _merge(parts: Sequence[int], ranks: Mapping[tuple[int, int], int]) -> list[int]:
    """Applies merges, the earliest learnt first, until none applies."""
    ids = list(parts)
    while True:
        known = [pair for pair in pairwise(ids) if pair in ranks]
        if not known:
            return ids
        best = min(known, key=ranks.__getitem__)
        place = 0
        while place < len(ids) - 1:
            if (ids[place], ids[place + 1]) == best:
                ids[place : place + 2] = [ranks[best]]
            place += 1
