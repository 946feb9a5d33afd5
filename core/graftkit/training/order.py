"""Which examples each step sees: a pure function of the seed, the epoch, the examples' lengths and their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, islice
from math import ceil, floor

__all__ = [
    "DatasetShare",
    "Mixture",
    "group_by_tokens",
    "plan_steps",
    "seen_in_epoch",
    "shuffled",
    "steps_of_epochs",
]


@dataclass(frozen=True, slots=True)
class DatasetShare:
    """How often the records of a data set are seen.

    Attributes:
        records: How many training records it has.
        weight: How often each of them is seen in an epoch, on average.
    """

    records: int
    weight: Fraction = Fraction(1)

    def seen(self, epochs: float) -> int:
        """Returns how many of its records the first epochs see together, those that are seen again included."""
        return floor(epochs * self.weight * self.records)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Data sets of which not every record is seen once an epoch.

    Attributes:
        shares: The data sets, in the order of their records.
        records: The number of the record that each example is of, counted over all data sets, `[examples]`.
    """

    shares: Sequence[DatasetShare]
    records: Sequence[int]


def shuffled(examples: int, seed: int, epoch: int) -> list[int]:
    """Returns the example numbers in an epoch's order.

    Each example is placed by the hash of (seed, epoch, example), which no library's release ever changes.

    Args:
        examples: How many there are.
        seed: The run's seed.
        epoch: The epoch, from 0.
    """
    return sorted(range(examples), key=lambda example: _place(f"{seed}:{epoch}:{example}"))


def _place(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def seen_in_epoch(share: DatasetShare, seed: int, epoch: int, number: int) -> list[int]:
    """Returns how often an epoch sees each record of a data set, `[records]`.

    All records follow one another in an order of their own, drawn by the hash of (seed, data set, round, record), then
    all of them again in the next round's order, and so on without end; each epoch takes the next
    `weight * records` of these. So a weight of 2 is each record twice in every epoch; one of 0.5 a half of them in the
    first epoch and the other half in the second; and over any number of epochs no record is seen more than once more
    often than another.

    Args:
        share: The data set.
        seed: The run's seed.
        epoch: The epoch, from 0.
        number: The data set's number among all.
    """
    times = [0] * share.records
    taken, end = share.seen(epoch), share.seen(epoch + 1)
    while taken < end:
        turn, first = divmod(taken, share.records)
        last = min(share.records, first + end - taken)
        order: Sequence[int] = range(share.records)
        if last - first < share.records:
            order = sorted(order, key=lambda record: _place(f"{seed}:data set {number}:{turn}:{record}"))
        for record in order[first:last]:
            times[record] += 1
        taken += last - first
    return times


def _mixed(mixture: Mixture, seed: int, epoch: int) -> list[int]:
    """Returns the examples of an epoch in its order; one that is seen several times stands in several places."""
    times = [seen for number, share in enumerate(mixture.shares) for seen in seen_in_epoch(share, seed, epoch, number)]
    copies = [
        (_place(f"{seed}:{epoch}:{example}" + (f":{copy}" if copy else "")), example)
        for example, record in enumerate(mixture.records)
        for copy in range(times[record])
    ]
    return [example for _, example in sorted(copies)]


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
    epochs: float | None = None,
    steps: int | None = None,
    mixture: Mixture | None = None,
) -> list[list[int]]:
    """Returns the examples of every step.

    Every epoch is every example once, in an order of its own, or the examples of the records that `seen_in_epoch`
    says where there is a mixture. With `steps` epochs follow one another until there are that many steps; with `epochs`
    (1 when neither is given) there are as many steps as they take: of a part of an epoch, its first steps, as many as
    that part of them comes to, rounded up.

    Args:
        lengths: Each example's tokens.
        seed: The run's seed.
        tokens_per_step: Tokens of a step at most, unless one example has more.
        epochs: How many epochs.
        steps: How many steps.
        mixture: How often the records of each data set are seen; None for every one once an epoch.
    """

    def epoch_steps(epoch: int) -> list[list[int]]:
        order = _mixed(mixture, seed, epoch) if mixture else shuffled(len(lengths), seed, epoch)
        return group_by_tokens(order, lengths, tokens_per_step)

    def endless() -> Iterator[list[int]]:
        return (step for epoch in count() for step in epoch_steps(epoch))

    if steps is not None:
        return list(islice(endless(), steps)) if lengths else []
    whole, part = divmod(_as_written(epochs or 1), 1)
    planned = [step for epoch in range(whole) for step in epoch_steps(epoch)]
    if part:
        last = epoch_steps(whole)
        planned += last[: ceil(part * len(last))]
    return planned


def steps_of_epochs(epochs: float, an_epoch: int) -> int:
    """Returns how many steps some epochs take, parts of one rounded up as in `plan_steps`.

    Args:
        epochs: How many epochs.
        an_epoch: The steps of one.

    Example:
        >>> steps_of_epochs(2.1, 10)
        21
    """
    return ceil(_as_written(epochs) * an_epoch)


def _as_written(number: float) -> Fraction:
    """Returns a number as people write it: what 2.1 is beyond 2 is more than a tenth in binary."""
    return Fraction(str(number))
