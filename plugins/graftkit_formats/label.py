"""Texts with labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, LabelledText, Message
from graftkit.errors import DataError
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import conversation
from graftkit_formats.config import LabelConfig
from graftkit_formats.turns import string_of

__all__ = ["Label"]


class Label:
    """Reads `{"text": ..., "label": ...}`: the user gives the text, the assistant answers the label.

    Args:
        config: Its fields.
    """

    def __init__(self, config: LabelConfig) -> None:
        self._names = config.names

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there are a text and a label."""
        both = "text" in found and found["text"].is_text and "label" in found
        return ["text", "label"] if both else None

    def sample(self, record: Mapping[str, Any], where: str) -> LabelledText:
        """Returns the text with its label."""
        messages = (Message("user", string_of(record, "text", where)), Message("assistant", self._label(record, where)))
        return LabelledText(conversation(messages, where).messages, where)

    def _label(self, record: Mapping[str, Any], where: str) -> str:
        label = record.get("label")
        if type(label) is not int:
            if label is not None and not isinstance(label, str):
                raise DataError(f'"label" is {kind_of(label)}, no text and no whole number', where=where)
            return string_of(record, "label", where)
        if not 0 <= label < len(self._names):
            raise DataError(
                f"the label is the number {label}, for which there is no word",
                where=where,
                hint="Give the words: format: {use: label, names: [FIRST, SECOND]}; or, to learn the texts alone, "
                "format: text.",
            )
        return self._names[label]
