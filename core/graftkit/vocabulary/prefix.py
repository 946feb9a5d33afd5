"""Tells what fewer new tokens would have given, from the most that were learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from graftkit.interfaces.vocabulary import NewToken

__all__ = ["PrefixCounter"]


class PrefixCounter:
    """Cuts the tokens of an extended tokenizer back to what its first new tokens alone would have made.

    In continued BPE each new token joins two that were there before it, and those learnt later only ever join what
    the earlier ones left: so taking the later ones apart again gives what the earlier ones make of a text. Which two
    a token joins is found by merging the base's ids that it stands for, in the order in which tokens were learnt.

    Args:
        tokens: The new tokens, in the order of their ids.

    Raises:
        ValueError: A token joins other than two: these were not learnt by joining pairs.
    """

    def __init__(self, tokens: Sequence[NewToken]) -> None:
        self._pairs: dict[int, tuple[int, int]] = {}
        self.learnt: list[int] = []
        ranks: dict[tuple[int, int], int] = {}
        for token in tokens:
            if len(token.parts) < 2:  # a byte that the base lacked: whole at any number
                continue
            joined = _merge(token.parts, ranks)
            if len(joined) != 2:
                raise ValueError(f"token {token.id} joins {len(joined)} others")
            ranks[joined[0], joined[1]] = token.id
            self._pairs[token.id] = (joined[0], joined[1])
            self.learnt.append(token.id)

    def counts(self, counts: Mapping[int, int], learnt: int) -> dict[int, int]:
        """Returns how often each id comes up where only so many tokens are learnt.

        Args:
            counts: Id -> how often it comes up with all of them.
            learnt: How many.
        """
        left = dict(counts)
        for id in reversed(self.learnt[learnt:]):
            times = left.pop(id, 0)
            for part in self._pairs[id] if times else ():
                left[part] = left.get(part, 0) + times
        return left


def _merge(parts: Sequence[int], ranks: Mapping[tuple[int, int], int]) -> list[int]:
    """Joins neighbours, the pair learnt first first, until none is left that was learnt."""
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
