"""Which rows each step sees: a pure function of the seed, the epoch and the rows' own lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count, islice

__all__ = ["group_by_tokens", "plan_steps", "shuffled"]


def shuffled(rows: int, seed: int, epoch: int) -> list[int]:
    """Returns the row numbers in an epoch's order.

    Each row is placed by the hash of (seed, epoch, row), which no library's release ever changes.
    """

    def place(row: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{epoch}:{row}".encode(), digest_size=16).digest()

    return sorted(range(rows), key=place)


def group_by_tokens(rows: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Groups rows in their order so that no group has more than `limit` tokens, unless one row alone has.

    Args:
        rows: Row numbers.
        lengths: Tokens of each row, by number.
        limit: Tokens of a group at most.

    Example:
        >>> group_by_tokens([0, 1, 2], [5, 4, 3], 9)
        [[0, 1], [2]]
    """
    groups: list[list[int]] = []
    room = 0
    for row in rows:
        if not groups or lengths[row] > room:
            groups.append([])
            room = limit
        groups[-1].append(row)
        room -= lengths[row]
    return groups


def plan_steps(
    lengths: Sequence[int],
    *,
    seed: int,
    tokens_per_step: int,
    epochs: int | None = None,
    steps: int | None = None,
) -> list[list[int]]:
    """Returns the rows of every step.

    Every epoch is every row once, in an order of its own. With `steps` epochs follow one another until there are
    that many steps; with `epochs` (1 when neither is given) there are as many steps as they take.
    """

    def epoch_steps(epoch: int) -> list[list[int]]:
        return group_by_tokens(shuffled(len(lengths), seed, epoch), lengths, tokens_per_step)

    def endless() -> Iterator[list[int]]:
        return (step for epoch in count() for step in epoch_steps(epoch))

    if steps is not None:
        return list(islice(endless(), steps)) if lengths else []
    return [step for epoch in range(epochs or 1) for step in epoch_steps(epoch)]
