"""Prompts and their completions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from graftkit import Column, Completion, Conversation
from graftkit.errors import NothingToLearn

from graftkit_formats.answered import conversation
from graftkit_formats.config import RolesConfig
from graftkit_formats.turns import SYSTEMS, TOOLS, TurnKeys, messages_of, string_of, tools_of, turns_of, with_system

__all__ = ["PromptCompletion"]

_KEYS = TurnKeys("prompt-completion")


class PromptCompletion:
    """Reads `{"prompt": ..., "completion": ...}`: texts, of which no chat template is made, or lists of messages.

    A completion after a list of messages may be a text, which is what the assistant says. Beside such a list only the
    completion is learnt, whatever weights those of the prompt have; columns "system" and "tools" go with it.

    Args:
        config: Its fields.
    """

    def __init__(self, config: RolesConfig) -> None:
        self._config = config

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where both are there: texts, or messages before messages or a text."""
        if not {"prompt", "completion"} <= found.keys():
            return None
        prompt, completion = found["prompt"], found["completion"]
        completes = completion.is_text or (prompt.is_list_of_objects and completion.is_list_of_objects)
        if not completes or not (prompt.is_text or prompt.is_list_of_objects):
            return None
        beside = [name for name in (*SYSTEMS, *TOOLS) if name in found] if prompt.is_list_of_objects else []
        return ["prompt", "completion", *beside]

    def sample(self, record: Mapping[str, Any], where: str) -> Completion | Conversation:
        """Returns the completion, or the conversation."""
        if isinstance(record.get("completion"), list):
            return self._conversation(record, where)
        if isinstance(record.get("prompt"), list):
            said = [{"role": "assistant", "content": string_of(record, "completion", where)}]
            return self._conversation({**record, "completion": said}, where)
        prompt, completion = (string_of(record, key, where) for key in ("prompt", "completion"))
        if not completion:
            raise NothingToLearn('"completion" is empty: there is nothing to learn', where=where)
        return Completion(prompt, completion, where)

    def _conversation(self, record: Mapping[str, Any], where: str) -> Conversation:
        prompt, completion = (
            messages_of(turns_of(record, key, where), f"{where}: {key}", self._config, _KEYS)
            for key in ("prompt", "completion")
        )
        silent = tuple(replace(message, weight=0.0) for message in prompt)
        return conversation(with_system(record, (*silent, *completion), where), where, tools_of(record, where))
