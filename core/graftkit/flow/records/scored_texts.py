"""Texts with a number, known by their columns' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftkit.corpus.columns import columns_of
from graftkit.flow.records.format_guess import FACTS, PAIRS, Guess, guess_of
from graftkit.interfaces.record_format import Column

__all__ = ["score_and_texts", "scored_texts"]


def scored_texts(records: Sequence[Mapping[str, Any]]) -> Guess | None:
    """Returns what reads a file's records as texts with a number; None where they have none by the columns' names.

    In tables of text, such as CSV, numbers are texts, and would be read as such or not at all. A number may have
    another name than `score`, too.

    Args:
        records: The first of them.

    Example:
        >>> scored_texts([{"review": "Fine.", "stars": "4"}, {"review": "Poor.", "stars": "1.5"}])
        {'format': {'use': 'score', 'as_text': True}, 'columns': {'text': 'review', 'score': 'stars'}}
    """
    found = columns_of(records)
    columns = score_and_texts(found, lambda name: all(_is_number(one.get(name)) for one in records))
    if columns is None:
        return None
    guess = guess_of("score", columns)
    if found[columns["score"]].types != {"number"}:
        return {**guess, "format": {"use": "score", "as_text": True}}
    return guess if guess["columns"] else None  # read so by itself


def score_and_texts(found: Mapping[str, Column], is_number: Callable[[str], bool]) -> dict[str, str] | None:
    """Returns which column is a text's number, by the columns' names, and which are texts where these don't say it.

    Args:
        found: The file's columns.
        is_number: Tells whether a column holds numbers alone.
    """
    numbers = [name for name in found if name.lower() in _SCORES and is_number(name)]
    if len(numbers) != 1 or any(name.lower() in ("label", "labels") for name in found):
        return None
    [score] = numbers
    if "text" in found or any(found.keys() >= pair for pair in PAIRS):
        return {"score": score}
    texts = [name for name, column in found.items() if column.is_text and name != score and not FACTS.fullmatch(name)]
    ours = ("text", "text_pair") if score.lower() in _ALIKE else ("text",)
    return {**dict(zip(ours, texts, strict=True)), "score": score} if len(texts) == len(ours) else None


_ALIKE = ("similarity", "similarity_score", "relatedness", "relatedness_score")
"""What data sets call a number that says how alike two texts are."""

_SCORES = ("score", "rating", "stars", *_ALIKE)
"""What data sets call a number that is learnt of a text, or of two."""


def _is_number(value: object) -> bool:
    """Tells whether a value is a number, or a text that says one."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
