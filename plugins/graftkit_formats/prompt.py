"""Prompts without an answer, which the model gives itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from graftkit import Column, Prompt, TextPrompt
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.samples import ANSWERED

from graftkit_formats.config import RolesConfig
from graftkit_formats.turns import SYSTEMS, TOOLS, TurnKeys, messages_of, string_of, tools_of, turns_of, with_system

__all__ = ["Prompts"]

_KEYS = TurnKeys("prompt")


class Prompts:
    """Reads `{"prompt": ...}`: a text, of which no chat template is made, or a list of messages.

    Columns "system" and "tools" go with messages.

    Args:
        config: Its fields.

    Attributes:
        unanswered: True: a record has no expected answer.
    """

    unanswered: ClassVar[bool] = True

    def __init__(self, config: RolesConfig) -> None:
        self._config = config

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where there is a prompt."""
        prompt = found.get("prompt")
        if prompt is None or not (prompt.is_text or prompt.is_list_of_objects):
            return None
        beside = [name for name in (*SYSTEMS, *TOOLS) if name in found]
        return ["prompt", *beside] if prompt.is_list_of_objects else ["prompt"]

    def sample(self, record: Mapping[str, Any], where: str) -> Prompt | TextPrompt:
        """Returns the prompt."""
        if not isinstance(record.get("prompt"), list):
            text = string_of(record, "prompt", where)
            if not text:
                raise NothingToLearn('"prompt" is empty: there is nothing to answer', where=where)
            return TextPrompt(text, "", where)
        messages = messages_of(turns_of(record, "prompt", where), f"{where}: prompt", self._config, _KEYS)
        if messages[-1].role not in ANSWERED:
            raise DataError(
                f"the prompt's last message is the {messages[-1].role}'s: an answer follows a user's or a tool's",
                where=where,
                hint="Leave the answer out, or give the conversation as messages.",
            )
        return Prompt(with_system(record, messages, where), where, tools_of(record, where))
