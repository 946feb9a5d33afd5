"""Texts with a label."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, LabelledText, Message, ScoredText
from graftkit.errors import DataError
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import conversation
from graftkit_formats.config import LabelConfig
from graftkit_formats.number_words import NumberWords
from graftkit_formats.text_columns import AS_TEXT, number_of, text_columns, text_of
from graftkit_formats.turns import string_of

__all__ = ["Label"]

_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]+)?")
_UNLABELLED = "Leave records without a label out of the file, or give them one."
_AS_WORDS = (
    "Write true and false as the words that they stand for, or as 1 and 0 with format: {use: label, names: [NO, YES]}."
)
_MEANT_AS_NUMBER = "; or, where the number itself is learnt: format: score, columns: {score: label}"


class Label(NumberWords):
    """Reads `{"text": ..., "label": ...}`: the user gives the text, the assistant answers the label.

    A second text, `text_pair`, makes a pair of it, of which a classifier learns the label. A label that is no whole
    number, such as 0.5, is a number that the text has, unless there are words for labels that are numbers: then one
    that is written as text, as in CSV, is such a number, too.

    Args:
        config: Its fields.
    """

    def __init__(self, config: LabelConfig) -> None:
        super().__init__(config.names)

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and a label, which is no list of places, as of entities."""
        texts, label = text_columns(found), found.get("label")
        places = label is not None and "list" in label.types and label.items <= {"list", "object"}
        return [*texts, "label"] if texts and label is not None and not places else None

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says which words a file keeps for its labels."""
        return self.told_words("label", record.get("label"))

    def sample(self, record: Mapping[str, Any], where: str) -> LabelledText | ScoredText:
        """Returns the text with its label."""
        label, words = record.get("label"), self.words("label")
        if words and isinstance(label, str) and label not in words and _NUMBER.fullmatch(label):
            label = float(label)  # as tables of text have it
        if words and type(label) is float:
            if not label.is_integer():
                told = f'"label" is {label!r:.40}, no number of one of the {len(words)} names'
                raise DataError(told, where=where)
            label = int(label)  # as tables have whole numbers in a column with gaps
        text, pair = text_of(record, where)
        if type(label) is float:
            return ScoredText(text, where, number_of(label, "label", where), pair)
        messages = (Message("user", text), Message("assistant", self._word(label, record, where)))
        return LabelledText(conversation(messages, where).messages, where, pair=pair)

    def _word(self, label: object, record: Mapping[str, Any], where: str) -> str:
        if type(label) is int:
            return self.word_of(label, "label", where, "label", _MEANT_AS_NUMBER)
        if label is None:
            raise DataError('"label" is missing or null', where=where, hint=f"{_UNLABELLED} {AS_TEXT}")
        if not isinstance(label, str):
            hint = _AS_WORDS if isinstance(label, bool) else AS_TEXT
            raise DataError(f'"label" is {kind_of(label)}, no text and no number', where=where, hint=hint)
        return string_of(record, "label", where)
