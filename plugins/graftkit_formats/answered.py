"""What every conversation to learn from has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit import Conversation, Message, Prompt
from graftkit.errors import NothingToLearn
from graftkit.interfaces.samples import ANSWERED

__all__ = ["conversation", "conversation_or_prompt"]


def conversation(messages: tuple[Message, ...], where: str, tools: tuple[Mapping[str, Any], ...] = ()) -> Conversation:
    """Returns a conversation.

    Raises:
        NothingToLearn: None of its messages counts in the loss.
    """
    if not any(message.loss_weight and message.says_something for message in messages):
        if any(message.role == "assistant" and message.says_something for message in messages):
            raise NothingToLearn("every message has the weight 0: there is nothing to learn", where=where)
        if any(message.role == "assistant" for message in messages):
            raise NothingToLearn("the answer is empty: there is nothing to learn", where=where)
        raise NothingToLearn("no turn of the assistant: there is nothing to learn", where=where)
    return Conversation(messages, where, tools)


def conversation_or_prompt(
    messages: tuple[Message, ...], where: str, tools: tuple[Mapping[str, Any], ...] = ()
) -> Conversation:
    """Returns a conversation; a prompt where nothing of it counts in the loss, and its last message is to be answered.

    Raises:
        NothingToLearn: None of its messages counts in the loss, and nobody answers the last one.
    """
    try:
        return conversation(messages, where, tools)
    except NothingToLearn:
        if messages[-1].role in ANSWERED:
            return Prompt(messages, where, tools)
        raise
