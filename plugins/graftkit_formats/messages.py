"""Lists of messages, as chat APIs take them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation
from graftkit.errors import DataError

from graftkit_formats.answered import conversation
from graftkit_formats.config import RolesConfig
from graftkit_formats.turns import kind_of, messages_of, string_of, tools_of, turns_of, with_system

__all__ = ["Messages", "the_column"]

_NAMES = ("messages", "conversation", "conversations", "chat", "dialog", "dialogue", "turns")


class Messages:
    """Reads `{"messages": [{"role": ..., "content": ...}, ...]}`; columns "system" and "tools" go with them.

    Args:
        config: Its fields.
    """

    def __init__(self, config: RolesConfig) -> None:
        self._roles = config.roles

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where a column holds lists of objects with a role and a content."""
        names = [
            name
            for name in _NAMES
            if name in found and (_holds_messages(found[name]) or (name == "messages" and found[name].is_text))
        ]
        return [names[0], *_beside(found)] if len(names) == 1 else None

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        turns = turns_of(record, the_column(record, _NAMES, where), where)
        messages = messages_of(turns, where, self._roles)
        system = string_of(record, "system", where) if "system" in record else None
        return conversation(with_system(system, messages, where), where, tools_of(record, where))


def _holds_messages(column: Column) -> bool:
    return column.is_list_of_objects and {"role", "content"} <= column.keys


def _beside(found: Mapping[str, Column]) -> list[str]:
    return [name for name in ("system", "tools") if name in found]


def the_column(record: Mapping[str, Any], names: Collection[str], where: str) -> str:
    """Returns the name of the one column of these that a record has.

    Raises:
        DataError: It has none of them, or several.
    """
    found = [name for name in names if name in record]
    if len(found) == 1:
        return found[0]
    known = " or ".join(f'"{name}"' for name in names)
    told = ", ".join(f'"{key}" ({kind_of(value)})' for key, value in list(record.items())[:20]) or "no keys"
    raise DataError(f"a record of this format has {known}; found {told}", where=where)
