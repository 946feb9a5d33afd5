"""A text in several languages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation, Message
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import conversation
from graftkit_formats.config import TranslationConfig
from graftkit_formats.turns import SYSTEMS, string_of, with_system

__all__ = ["Translation"]

_COLUMN = "translation"


class Translation:
    """Reads `{"translation": {"en": ..., "fr": ...}}`: the user gives one of the texts, the assistant another.

    Args:
        config: Its fields, which say from which language into which.
    """

    def __init__(self, config: TranslationConfig) -> None:
        self._source, self._target = config.source, config.target

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is an object of texts, and it is said which of them is translated into which."""
        column = found.get(_COLUMN)
        if column is None or "object" not in column.types or not column.types <= {"object", "null"}:
            return None
        if not self._source or not {self._source, self._target} <= column.keys:
            return None
        return [_COLUMN, *(name for name in SYSTEMS if name in found and found[name].is_text)]

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says which languages are not read."""
        texts = record.get(_COLUMN)
        others = sorted({*texts} - {self._source, self._target}) if isinstance(texts, dict) else []
        return f"{self._source} is translated into {self._target}; not read: {', '.join(others)}" if others else ""

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        texts = record.get(_COLUMN)
        if not isinstance(texts, dict | None):
            raise DataError(f'"{_COLUMN}" is {kind_of(texts)}, no object', where=where)
        said = {key: value for key, value in (texts or {}).items() if value is not None}
        missing = next((name for name in (self._source, self._target) if name not in said), None)
        if missing is not None:
            raise NothingToLearn(f'there is no text in the language "{missing}"', where=where)
        messages = (
            Message("user", string_of(said, self._source, where)),
            Message("assistant", string_of(said, self._target, where)),
        )
        return conversation(with_system(record, messages, where), where)
