"""Draws the holdout records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.sample_files import Samples

__all__ = ["Grouped", "Split", "drawn", "exclude", "split"]


@dataclass(frozen=True, slots=True)
class Grouped:
    """What the column says by which records are held out together.

    Attributes:
        train: How many values of it training records have.
        holdout: How many holdout records have.
        left: How many records to learn from were dropped since they share their value with records of a holdout file.
    """

    train: int
    holdout: int
    left: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Training records and holdout records.

    Attributes:
        train: The records to learn from, in the order they were read.
        holdout: The others.
        repeated: How many records to learn from were dropped since they are also held out.
        grouped: What is known of records that are held out together; None where they are drawn one by one.
    """

    train: Samples
    holdout: Samples
    repeated: int = 0
    grouped: Grouped | None = None


def split(samples: Samples, share: float) -> Split:
    """Draws records at random; equal records always go to the same side.

    A record's side depends on its content, the share and the seed of its place, not on where it stands in the file.
    Where records have groups, it depends on the group in the place of the content: a group is held out as a whole or
    not at all, and a record to learn from that is equal to one of them is dropped.

    Args:
        samples: All records, each with its place in the draw.
        share: The share to hold out, 0 to 0.5; at least one record unless it is 0, at least one is left to learn from.
    """
    _, group, counts = np.unique(samples.draws, return_inverse=True, return_counts=True)
    wanted = max(1, round(share * len(samples))) if share else 0
    held = np.zeros(len(counts), bool)
    held[_taken(counts, wanted)] = True
    train, holdout = samples.only(~held[group]), samples.only(held[group])
    return exclude(train, holdout) if len(samples.groups) else Split(train, holdout)


def drawn(counts: Mapping[str, int], wanted: int) -> set[str]:
    """Takes groups of equal records, in their drawn order, as long as they fit; at least the smallest, never all.

    Args:
        counts: Each group's key -> how much it counts, in the drawn order.
        wanted: How much to take at most; 0 for nothing.
    """
    keys = list(counts)
    return {keys[place] for place in _taken(list(counts.values()), wanted)}


def _taken(counts: Sequence[int] | NDArray[np.int64], wanted: int) -> list[int]:
    taken: list[int] = []
    for place, count in enumerate(map(int, counts)):
        if not wanted:
            break
        if count <= wanted and len(taken) < len(counts) - 1:
            taken.append(place)
            wanted -= count
    if not taken and wanted and len(counts) > 1:
        taken.append(int(np.argmin(counts)))
    return taken


def exclude(samples: Samples, holdout: Samples) -> Split:
    """Removes holdout records from the training records, and those of the same groups, where they have groups."""
    train = samples.only(~np.isin(samples.digests, holdout.digests[holdout.kept]))
    found = Split(train, holdout, repeated=len(samples) - len(train))
    if not len(samples.groups):
        return found
    theirs = np.unique(holdout.groups[holdout.kept])
    alone = train.only(~np.isin(samples.groups, theirs))
    learnt = np.unique(alone.groups[alone.kept])
    return replace(found, train=alone, grouped=Grouped(len(learnt), len(theirs), len(train) - len(alone)))
