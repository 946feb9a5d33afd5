"""Pairs of a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from graftkit import Column, Conversation, Message
from graftkit.errors import DataError

from graftkit_formats.answered import conversation
from graftkit_formats.config import PreferenceConfig
from graftkit_formats.turns import messages_of, string_of, turns_of

__all__ = ["Preference"]


class Preference:
    """Reads `{"prompt": ..., "chosen": ..., "rejected": ...}`: texts or lists of messages, with or without a prompt.

    Args:
        config: Its fields.
    """

    def __init__(self, config: PreferenceConfig) -> None:
        self._roles, self._learn = config.roles, config.learn

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where a chosen and a rejected answer are there, of one type."""
        if not {"chosen", "rejected"} <= found.keys():
            return None
        pair = (found["chosen"], found["rejected"])
        prompt = found.get("prompt")
        lists = all(column.is_list_of_objects for column in pair)
        texts = all(column.is_text for column in pair) and prompt is not None and prompt.is_text
        return ["chosen", "rejected", *(["prompt"] if prompt else [])] if lists or texts else None

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the prompt and the chosen answer."""
        if self._learn is None:
            raise DataError(
                "the record has a chosen and a rejected answer, and fine-tuning learns one",
                where=where,
                hint="To learn the chosen ones: format: {use: preference, learn: chosen}.",
            )
        chosen = self._messages(record, "chosen", "assistant", where)
        prompt = self._messages(record, "prompt", "user", where) if "prompt" in record else ()
        if chosen[: len(prompt)] == prompt:  # the whole conversation is given
            prompt = ()
        *before, last = (*prompt, *chosen)
        silent = [replace(message, weight=message.weight or 0.0) for message in before]
        return conversation((*silent, last), where)

    def _messages(self, record: Mapping[str, Any], key: str, role: str, where: str) -> tuple[Message, ...]:
        if isinstance(record.get(key), str) and not record[key].lstrip().startswith("[{"):
            return (Message(role, string_of(record, key, where)),)
        return messages_of(turns_of(record, key, where), f"{where}: {key}", self._roles)
