"""Entities in sequences of tags such as B-PER, I-PER and O, and how many of them are found.

What counts as an entity is what conlleval.pl says, the script of the shared task CoNLL-2003, and seqeval by default:
an entity begins at a B- or S- tag, and at any other tag that follows O, an entity that has ended, or one of another
type; it ends where the next tag begins one or is O, and after an E- or S- tag. In the scheme BILOU these are called L-
and U-.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

__all__ = ["are_chunks", "entities_in", "precision_recall_f1"]

Entity = tuple[str, int, int]
"""An entity's type, and the numbers of its first word and of its last one."""

_KINDS = frozenset("BIES")
_BILOU = {"L": "E", "U": "S"}
"""What other prefixes mean."""


def are_chunks(labels: Collection[str]) -> bool:
    """Tells whether tags say where entities begin and go on: each but O has a prefix such as B- or I-."""
    others = [label for label in labels if label != "O"]
    kinds = {label[:1] if label[1:2] == "-" else "" for label in others}
    return bool(others) and any(kinds <= scheme for scheme in (_KINDS, {"B", "I", *_BILOU}))


def entities_in(tags: Sequence[str]) -> set[Entity]:
    """Returns the entities of a text.

    Args:
        tags: The tag of each word.

    Example:
        >>> sorted(entities_in(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
        [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
    """
    found: set[Entity] = set()
    open_type: str | None = None
    start = 0
    for number, tag in enumerate([*tags, "O"]):
        written, _, name = tag.partition("-")
        kind = _BILOU.get(written, written)
        goes_on = kind in ("I", "E") and name == open_type
        if open_type is not None and not goes_on:
            found.add((open_type, start, number - 1))
            open_type = None
        if kind in _KINDS and not goes_on:
            open_type, start = name, number
        if kind in ("E", "S"):
            found.add((name, start, number))
            open_type = None
    return found


def precision_recall_f1(both: int, true: int, predicted: int) -> dict[str, float]:
    """Returns which share of predicted entities is right, which of true ones is found, and their harmonic mean.

    Args:
        both: How many entities are there and predicted, of all texts together.
        true: How many are there.
        predicted: How many are predicted.

    Returns:
        All three by name; NaN where there is neither a true nor a predicted entity.
    """
    if not true + predicted:
        return dict.fromkeys(("precision", "recall", "f1"), math.nan)
    return {
        "precision": both / predicted if predicted else 0.0,
        "recall": both / true if true else 0.0,
        "f1": 2 * both / (true + predicted),
    }
