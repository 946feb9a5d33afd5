"""Texts with any number of labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, TextWithLabels
from graftkit.errors import DataError
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.config import LabelConfig
from graftkit_formats.number_words import NumberWords
from graftkit_formats.text_columns import AS_TEXT, listed, text_columns, text_of

__all__ = ["Labels"]

_NO_ROW = "A row of zeros and ones is written as the labels whose place has a one."


class Labels(NumberWords):
    """Reads `{"text": ..., "labels": [...]}`: a text, and those labels of a few that it has; an empty list is none.

    Args:
        config: Its fields.
    """

    def __init__(self, config: LabelConfig) -> None:
        super().__init__(config.names)

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and lists of labels, and no single label beside them."""
        lists = "labels" in found and "list" in found["labels"].types and not found["labels"].items & {"object", "list"}
        fits = lists and "label" not in found
        texts = text_columns(found)
        return [*texts, "labels"] if fits and texts else None

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says which words a file keeps for its labels."""
        return self.told_words("labels", record.get("labels"))

    def sample(self, record: Mapping[str, Any], where: str) -> TextWithLabels:
        """Returns the text with its labels."""
        labels = record.get("labels")
        if not isinstance(labels, list):
            told = "is missing or null" if labels is None else f"is {kind_of(labels)}, no list"
            hint = f"{listed(labels, 'labels')}A text without a label has an empty list: []. {AS_TEXT}"
            raise DataError(f'"labels" {told}', where=where, hint=hint)
        names = tuple(self._named(label, where) for label in labels)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            told = f"the label {twice[:60]!r} stands there twice"
            raise DataError(told, where=where, hint=f"Name each label once. {_NO_ROW} {AS_TEXT}")
        text, pair = text_of(record, where)
        return TextWithLabels(text, where, names, pair)

    def _named(self, label: object, where: str) -> str:
        if type(label) is int:
            return self.word_of(label, "labels", where, "labels")
        if not isinstance(label, str) or not label:
            told = "empty" if label == "" else f"{kind_of(label)}, no text and no whole number"
            hint = f"{_NO_ROW} {AS_TEXT}" if type(label) is float else AS_TEXT
            raise DataError(f'one of "labels" is {told}', where=where, hint=hint)
        return label
