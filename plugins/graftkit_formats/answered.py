"""What every conversation to learn from has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation, Message, Prompt
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of
from graftkit.interfaces.samples import ANSWERED

from graftkit_formats.turns import string_of

__all__ = ["answer_of", "beside_answer", "conversation", "conversation_or_prompt", "earlier_turns"]


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


def beside_answer(found: Mapping[str, Column]) -> Collection[str]:
    """Returns the columns of earlier turns and of the reasoning before an answer, those that there are."""
    history = ["history"] if "history" in found and "list" in found["history"].types else []
    return [*history, *([_REASONING] if _REASONING in found and found[_REASONING].is_text else [])]


def answer_of(record: Mapping[str, Any], key: str, where: str) -> Message:
    """Returns the answer in a column, with the reasoning that stands in "reasoning_content", if any.

    Raises:
        DataError: One of them is no text.
    """
    reasoning = string_of(record, _REASONING, where) if _REASONING in record else ""
    return Message("assistant", string_of(record, key, where), reasoning=reasoning)


_REASONING = "reasoning_content"


def earlier_turns(record: Mapping[str, Any], where: str) -> list[Message]:
    """Returns the turns of a record's "history", a list of pairs of question and answer.

    Raises:
        DataError: It is no such list.
    """
    pairs = record.get("history") or []
    if not isinstance(pairs, list):
        raise DataError(f'"history" is {kind_of(pairs)}, no list of pairs', where=where)
    messages = []
    for number, pair in enumerate(pairs, 1):
        at = f"{where}: history {number}"
        if not isinstance(pair, list) or len(pair) != 2:
            hint = "To leave the column out, give it a name that is not read: columns: {unread: history}."
            raise DataError("a turn of the history is a pair of question and answer", where=at, hint=hint)
        said = {"question": pair[0], "answer": pair[1]}
        messages += [
            Message("user", string_of(said, "question", at)),
            Message("assistant", string_of(said, "answer", at)),
        ]
    return messages
