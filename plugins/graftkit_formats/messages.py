"""Lists of messages, as chat APIs and ShareGPT write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from graftkit import Column, Conversation
from graftkit.errors import DataError
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import conversation_or_prompt
from graftkit_formats.config import RolesConfig
from graftkit_formats.turns import SYSTEMS, TOOLS, TurnKeys, messages_of, tools_of, turns_of, with_system
from graftkit_formats.without_roles import describe_turns, holds_turns_without_roles, with_roles

__all__ = ["Messages", "ShareGpt"]

_WRITTEN = (
    "Its list is written as text, which says less of what it holds. In a csv, have lists read: reader: {{use: csv, "
    "lists: [{name}]}}. Of JSON lines this makes lists: jq -c '.{name} |= fromjson' FILE > records.jsonl"
)
"""What to do where a table, or another file, holds turns of another shape as JSON text."""


class Messages:
    """Reads `{"messages": [{"role": ..., "content": ...}, ...]}`; columns "system" and "tools" go with them.

    A list called "conversation", or "conversations", may hold texts, which are the user's and the assistant's in turn,
    or `{"input": ..., "output": ...}`, a turn of both.

    Args:
        config: Its fields.

    Attributes:
        names: What the column with the list may be called.
        as_text: What it is called where a table holds it as JSON text.
        without_roles: What it is called where its turns need not say who speaks.
        keys: How turns are written.
    """

    names: ClassVar[tuple[str, ...]] = (
        "messages",
        "conversation",
        "conversations",
        "chat",
        "dialog",
        "dialogue",
        "turns",
    )
    as_text: ClassVar[str] = "messages"
    without_roles: ClassVar[tuple[str, ...]] = ("conversation", "conversations")
    keys: ClassVar[TurnKeys] = TurnKeys("messages", contents=("content", "value", "text"))

    def __init__(self, config: RolesConfig) -> None:
        self._config = config

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where one column holds lists of objects with a role and a text."""
        pairs = {"chosen", "rejected"} <= found.keys()  # whose prompt a list without roles may be
        without = () if pairs else [name for name in self.without_roles if name in found]
        names = [
            name
            for name in self.names
            if name in found
            and (self._holds_turns(name, found[name]) or (name in without and holds_turns_without_roles(found[name])))
        ]
        beside = [name for name in (*SYSTEMS, *TOOLS) if name in found]
        return [names[0], *beside] if len(names) == 1 else None

    def _holds_turns(self, name: str, column: Column) -> bool:
        has_both = self.keys.role in column.keys and not column.keys.isdisjoint(self.keys.contents)
        return (column.is_list_of_objects and has_both) or (name == self.as_text and column.is_text)

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says who speaks, where turns don't."""
        return describe_turns(next((record[name] for name in self.without_roles if name in record), None))

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        name = self._column(record, where)
        turns = turns_of(record, name, where)
        if name in self.without_roles:
            turns = with_roles(turns, self._config.ignore, where)
        try:
            messages = messages_of(turns, where, self._config, self.keys)
        except DataError as error:
            if error.hint or not isinstance(record[name], str):
                raise
            raise DataError(error.message, where=error.where, hint=_WRITTEN.format(name=name)) from None
        return conversation_or_prompt(with_system(record, messages, where), where, tools_of(record, where))

    def _column(self, record: Mapping[str, Any], where: str) -> str:
        """Returns the name of the column with the list."""
        found = [name for name in self.names if name in record]
        if len(found) == 1:
            return found[0]
        known = " or ".join(f'"{name}"' for name in self.names)
        told = ", ".join(f'"{key}" ({kind_of(value)})' for key, value in list(record.items())[:20]) or "no keys"
        raise DataError(f"a record of this format has {known}; found {told}", where=where)


class ShareGpt(Messages):
    """Reads `{"conversations": [{"from": "human", "value": ...}, ...]}`; columns "system" and "tools" go with them."""

    names = ("conversations", "conversation", "messages")
    as_text = "conversations"
    without_roles = ()
    keys = TurnKeys("sharegpt", "from", ("value", "content", "text"))
