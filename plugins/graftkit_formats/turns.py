"""Messages of a conversation, as records write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftkit import Message
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.samples import ROLES

__all__ = ["kind_of", "messages_of", "role_of", "string_of", "turns_of", "with_system"]

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "prompter": "user",
    "developer": "system",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""Other programs' names for the roles."""

_WEIGHTS = ("weight", "train")
_PENDING = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking", "name")
"""What a message may hold in other programs besides."""


def kind_of(value: Any) -> str:
    """Returns what a value is called in an error."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def string_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """Returns a text.

    Args:
        record: What it is in.
        key: Its key, which may be missing.
        where: File and line.

    Raises:
        DataError: It is missing, or is no text.
    """
    if key not in record:
        raise DataError(f'"{key}" is missing or null', where=where)
    value = record[key]
    if not isinstance(value, str):
        raise DataError(f'"{key}" is {kind_of(value)}, no string', where=where)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f'"{key}" holds half of a surrogate pair, which is no text', where=where) from None
    return value


def role_of(name: Any, roles: Mapping[str, str], where: str) -> str:
    """Returns the role that a record's name for it means.

    Args:
        name: What the record says.
        roles: Further names, by the recipe.
        where: File, line and message.

    Raises:
        DataError: It means none.
    """
    if isinstance(name, str):
        found = roles.get(name) or (name if name in ROLES else _ROLES.get(name.lower()) or _lower(name))
        if found:
            return found
    shown = repr(name) if len(repr(name)) < 100 else f"{repr(name)[:100]}..."
    raise DataError(
        f"role {shown} is none of {', '.join(ROLES)}, and no name for one that is known",
        where=where,
        hint="Say what it means: format: {use: NAME, roles: {THEIRS: user}}.",
    )


def _lower(name: str) -> str | None:
    return name.lower() if name.lower() in ROLES else None


def turns_of(record: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """Returns a list of turns, which may be written as JSON text, as tables do.

    Raises:
        DataError: It is none.
    """
    turns = record.get(key)
    if isinstance(turns, str) and turns.lstrip().startswith("["):
        try:
            turns = parse_json(turns, 2_000_000)
        except (ValueError, RecursionError) as error:
            raise DataError(f'"{key}" is text that begins like JSON, but is none: {error}', where=where) from None
    if not isinstance(turns, list) or not turns:
        empty = "an empty list" if isinstance(turns, list) else kind_of(turns)
        raise DataError(f'"{key}" is {empty}, no list of turns', where=where)
    return turns


def messages_of(
    turns: Sequence[Any],
    where: str,
    roles: Mapping[str, str],
    role_key: str = "role",
    content_key: str = "content",
) -> tuple[Message, ...]:
    """Returns the messages of a list of turns.

    Args:
        turns: The turns.
        where: File and line.
        roles: Names for roles besides those that are known.
        role_key: The key under which a turn has its role.
        content_key: The key under which it has its text.

    Raises:
        DataError: A turn is malformed, or holds more than is read; with its number.
    """
    return tuple(
        _message(turn, f"{where}: message {number}", roles, role_key, content_key)
        for number, turn in enumerate(turns, 1)
    )


def _message(turn: Any, where: str, roles: Mapping[str, str], role_key: str, content_key: str) -> Message:
    found = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    extra = [key for key in found if key not in (role_key, content_key, *_WEIGHTS)]
    if not found or extra or role_key not in found:
        told = ", ".join(found) or "nothing" if isinstance(turn, dict) else kind_of(turn)
        raise DataError(
            f'a message has "{role_key}" and "{content_key}", and perhaps "weight"; found {told}',
            where=where,
            hint="Tool calls, reasoning and names are not laid out yet." if {*extra} & {*_PENDING} else "",
        )
    role = role_of(found[role_key], roles, where)
    return Message(role, _content(found, content_key, where), _weight(found, where))


def _content(turn: Mapping[str, Any], key: str, where: str) -> str:
    """Returns a message's text; content in parts is joined where every part is text."""
    content = turn.get(key)
    if not isinstance(content, list):
        return string_of(turn, key, where)
    texts = []
    for part in content:
        if not (isinstance(part, dict) and part.get("type") == "text"):
            found = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise DataError(f'"{key}" has a part of the type {json.dumps(found)}; parts of text are read', where=where)
        texts.append(string_of(part, "text", where))
    return "".join(texts)


def _weight(turn: Mapping[str, Any], where: str) -> float | None:
    """Returns what a message says of its loss: "weight" as in OpenAI's format, a number, or "train", true or false."""
    said = [key for key in _WEIGHTS if key in turn]
    if not said:
        return None
    value = turn[said[0]]
    if len(said) > 1 or not isinstance(value, int | float) or not 0 <= value <= 1_000:
        raise DataError('"weight" is a number from 0, or "train" true or false', where=where)
    return float(value)


def with_system(system: str | None, messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """Puts a system prompt that stands in a column of its own before the messages.

    Raises:
        DataError: The messages begin with another one.
    """
    if not system:
        return messages
    if messages and messages[0].role == "system":
        if messages[0].content == system:
            return messages
        raise DataError("the record has a system prompt, and its first message is another one", where=where)
    return (Message("system", system), *messages)
