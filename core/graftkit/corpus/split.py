"""Keeps some rows apart that training never sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graftkit.corpus.rows import Row
from graftkit.store.fingerprint import fingerprint

__all__ = ["Split", "drawn", "exclude", "split"]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to learn from and rows to judge by.

    Attributes:
        train: The rows to learn from, in the order they were read.
        holdout: The others.
        repeated: How many rows to learn from were dropped since they are also held out.
    """

    train: list[Row]
    holdout: list[Row]
    repeated: int = 0


def split(rows: Sequence[Row], share: float, seed: int) -> Split:
    """Draws rows at random; equal rows always go to the same side.

    A row's side depends on its content, the share and the seed, not on its place in the file.

    Args:
        rows: All rows.
        share: The share to hold out, 0 to 0.5; at least one row unless it is 0, at least one is left to learn from.
        seed: Draws another set.
    """
    keys = [fingerprint([seed, row.key()]) for row in rows]
    wanted = max(1, round(share * len(rows))) if share else 0
    counts = dict.fromkeys(sorted(set(keys)), 0)
    for key in keys:
        counts[key] += 1
    held = drawn(counts, wanted)
    return Split(
        train=[row for row, key in zip(rows, keys, strict=True) if key not in held],
        holdout=[row for row, key in zip(rows, keys, strict=True) if key in held],
    )


def drawn(counts: Mapping[str, int], wanted: int) -> set[str]:
    """Takes groups of equal rows, in their drawn order, as long as they fit; at least the smallest, never all.

    Args:
        counts: Each group's key -> how much it counts, in the drawn order.
        wanted: How much to take at most; 0 for nothing.
    """
    held: set[str] = set()
    for key, count in counts.items():
        if count <= wanted and len(held) < len(counts) - 1:
            held.add(key)
            wanted -= count
    if not held and wanted and len(counts) > 1:
        held.add(min(counts, key=lambda key: counts[key]))
    return held


def exclude(rows: Sequence[Row], holdout: Sequence[Row]) -> Split:
    """Drops from the rows to learn from those that a separate held-out file also has."""
    held = {fingerprint(row.key()) for row in holdout}
    train = [row for row in rows if fingerprint(row.key()) not in held]
    return Split(train, list(holdout), repeated=len(rows) - len(train))
