"""Conversations as ShareGPT writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation

from graftkit_formats.answered import conversation
from graftkit_formats.config import RolesConfig
from graftkit_formats.messages import the_column
from graftkit_formats.turns import messages_of, string_of, tools_of, turns_of, with_system

__all__ = ["ShareGpt"]

_NAMES = ("conversations", "conversation", "messages")


class ShareGpt:
    """Reads `{"conversations": [{"from": "human", "value": ...}, ...]}`; columns "system" and "tools" go with them.

    Args:
        config: Its fields.
    """

    def __init__(self, config: RolesConfig) -> None:
        self._roles = config.roles

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where a column holds lists of objects with from and value."""
        names = [
            name
            for name in _NAMES
            if name in found
            and ((found[name].is_list_of_objects and {"from", "value"} <= found[name].keys) or _is_json(found, name))
        ]
        beside = [name for name in ("system", "tools") if name in found]
        return [names[0], *beside] if len(names) == 1 else None

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        turns = turns_of(record, the_column(record, _NAMES, where), where)
        messages = messages_of(turns, where, self._roles, "from", "value")
        system = string_of(record, "system", where) if "system" in record else None
        return conversation(with_system(system, messages, where), where, tools_of(record, where))


def _is_json(found: Mapping[str, Column], name: str) -> bool:
    """Whether a table holds the turns as text; "messages" in text is the format of that name."""
    return name == "conversations" and found[name].is_text
