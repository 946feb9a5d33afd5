"""Draws the holdout records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftkit.corpus.sample_files import Samples

__all__ = ["Split", "drawn", "exclude", "split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Training records and holdout records.

    Attributes:
        train: The records to learn from, in the order they were read.
        holdout: The others.
        repeated: How many records to learn from were dropped since they are also held out.
    """

    train: Samples
    holdout: Samples
    repeated: int = 0


def split(samples: Samples, share: float) -> Split:
    """Draws records at random; equal records always go to the same side.

    A record's side depends on its content, the share and the seed of its place, not on where it stands in the file.

    Args:
        samples: All records, each with its place in the draw.
        share: The share to hold out, 0 to 0.5; at least one record unless it is 0, at least one is left to learn from.
    """
    _, group, counts = np.unique(samples.draws, return_inverse=True, return_counts=True)
    wanted = max(1, round(share * len(samples))) if share else 0
    held = np.zeros(len(counts), bool)
    held[_taken(counts, wanted)] = True
    return Split(samples.only(~held[group]), samples.only(held[group]))


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
    """Removes the records of a separate holdout file from the training records."""
    train = samples.only(~np.isin(samples.digests, holdout.digests))
    return Split(train, holdout, repeated=len(samples) - len(train))
