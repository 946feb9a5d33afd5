"""Texts with a number."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from graftkit import Column, ScoredText

from graftkit_formats.config import ScoreConfig
from graftkit_formats.text_columns import number_of, text_columns, text_of

__all__ = ["Score"]


class Score:
    """Reads `{"text": ..., "score": ...}`: a text, or a pair of texts, and a number.

    Args:
        config: Its fields.
    """

    def __init__(self, config: ScoreConfig) -> None:
        self._as_text = config.as_text

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and a number, and no label beside them."""
        numbers = "score" in found and {"number", *(["string"] if self._as_text else [])} & found["score"].types
        fits = numbers and not {"label", "labels"} & found.keys()
        texts = text_columns(found)
        return [*texts, "score"] if fits and texts else None

    def sample(self, record: Mapping[str, Any], where: str) -> ScoredText:
        """Returns the text with its number."""
        text, pair = text_of(record, where)
        score = record.get("score")
        if self._as_text and isinstance(score, str):
            with suppress(ValueError):
                score = float(score)
        return ScoredText(text, where, number_of(score, "score", where), pair)
