"""Which examples each step sees: a pure function of the seed, the epoch and the examples' own lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count, islice

__all__ = ["group_by_tokens", "plan_steps", "shuffled"]


def shuffled(examples: int, seed: int, epoch: int) -> list[int]:
    """Returns the example numbers in an epoch's order.

    Each example is placed by the hash of (seed, epoch, example), which no library's release ever changes.
    """

    def place(example: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{epoch}:{example}".encode(), digest_size=16).digest()

    return sorted(range(examples), key=place)


def group_by_tokens(examples: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Groups examples in their order so that no group has more than `limit` tokens, unless one example alone has.

    Args:
        examples: Example numbers.
        lengths: Tokens of each example, by number.
        limit: Tokens of a group at most.

    Example:
        >>> group_by_tokens([0, 1, 2], [5, 4, 3], 9)
        [[0, 1], [2]]
    """
    groups: list[list[int]] = []
    room = 0
    for example in examples:
        if not groups or lengths[example] > room:
            groups.append([])
            room = limit
        groups[-1].append(example)
        room -= lengths[example]
    return groups


def plan_steps(
    lengths: Sequence[int],
    *,
    seed: int,
    tokens_per_step: int,
    epochs: int | None = None,
    steps: int | None = None,
) -> list[list[int]]:
    """Returns the examples of every step.

    Every epoch is every example once, in an order of its own. With `steps` epochs follow one another until there are
    that many steps; with `epochs` (1 when neither is given) there are as many steps as they take.
    """

    def epoch_steps(epoch: int) -> list[list[int]]:
        return group_by_tokens(shuffled(len(lengths), seed, epoch), lengths, tokens_per_step)

    def endless() -> Iterator[list[int]]:
        return (step for epoch in count() for step in epoch_steps(epoch))

    if steps is not None:
        return list(islice(endless(), steps)) if lengths else []
    return [step for epoch in range(epochs or 1) for step in epoch_steps(epoch)]
