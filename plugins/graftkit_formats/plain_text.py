"""Texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, LongText, RecordSource, Text
from graftkit.errors import NothingToLearn

from graftkit_formats.turns import string_of

__all__ = ["PlainText"]

_NAMES = ("text", "content")


class PlainText:
    """Reads `{"text": ...}`: all of it is learnt, and no chat template is made of it."""

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is one text."""
        names = [name for name in _NAMES if name in found and found[name].is_text]
        return names if len(names) == 1 else None

    def sample(self, record: Mapping[str, Any], where: str) -> Text | LongText:
        """Returns the text."""
        name = next((name for name in _NAMES if name in record), "text")
        value = record.get(name)
        if isinstance(value, RecordSource):
            return LongText(value, where)
        text = string_of(record, name, where)
        if not text.strip():
            raise NothingToLearn(f'"{name}" is empty: there is nothing to learn', where=where)
        return Text(text, where)
