"""Messages of a conversation, as records write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graftkit import Message, ToolCall
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_strict_json
from graftkit.interfaces.record_format import kind_of
from graftkit.interfaces.samples import ROLES

__all__ = ["SYSTEMS", "messages_of", "role_of", "string_of", "tools_of", "turns_of", "with_system"]

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

SYSTEMS = ("system", "system_prompt")
"""Columns that hold a system prompt."""

_WEIGHTS = ("weight", "train")
_REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
_CALL_KEYS = {"id", "type", "index", "function", "name", "arguments"}
_BESIDE = ("name", "tool_call_id", "tool_calls", "function_call")


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
        turns = _parsed(turns, key, where)
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
    known = (role_key, content_key, *_WEIGHTS, *_REASONING, *_BESIDE)
    if role_key not in found or any(key not in known for key in found):
        told = ", ".join(found) or "nothing" if isinstance(turn, dict) else kind_of(turn)
        raise DataError(
            f'a message has "{role_key}" and "{content_key}", and perhaps weight, name, reasoning_content, tool_calls '
            f"or tool_call_id; found {told}",
            where=where,
        )
    calls = _calls(found, where)
    reasoning = [key for key in _REASONING if found.get(key)]
    if len(reasoning) > 1:
        raise DataError(f"it has {' and '.join(reasoning)}, which mean the same", where=where)
    return Message(
        role_of(found[role_key], roles, where),
        _content(found if content_key in found or not calls else {content_key: ""}, content_key, where),
        _weight(found, where),
        reasoning=string_of(found, reasoning[0], where) if reasoning else "",
        tool_calls=calls,
        tool_call_id=string_of(found, "tool_call_id", where) if "tool_call_id" in found else "",
        name=string_of(found, "name", where) if "name" in found else "",
    )


def _calls(turn: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    """Returns the calls of a message: as in OpenAI's format, bare, or as JSON text; also the older function_call."""
    calls = turn.get("tool_calls", [])
    if isinstance(calls, str):
        calls = _parsed(calls, "tool_calls", where)
    if not isinstance(calls, list):
        raise DataError(f'"tool_calls" is {kind_of(calls)}, no list', where=where)
    if "function_call" in turn:
        calls = [*calls, turn["function_call"]]
    return tuple(_call(call, f"{where}: call {number}") for number, call in enumerate(calls, 1))


def _call(call: Any, where: str) -> ToolCall:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise DataError('a call has a "function" with "name" and "arguments"', where=where)
    over = sorted(map(str, {*call, *inner} - _CALL_KEYS))
    if over:
        raise DataError(f'a call has "name" and "arguments"; found {", ".join(over)}, too', where=where)
    arguments = inner.get("arguments", {})
    if not isinstance(arguments, dict | str):
        raise DataError(f'"arguments" is {kind_of(arguments)}, no object and no text of one', where=where)
    id = call.get("id")
    return ToolCall(string_of(inner, "name", where), arguments, id if isinstance(id, str) else "")


def _parsed(text: str, key: str, where: str) -> Any:
    try:
        return parse_strict_json(text, 2_000_000)
    except (ValueError, RecursionError) as error:
        raise DataError(f'"{key}" is text, but no JSON: {error}', where=where) from None


def tools_of(record: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """Returns the descriptions of tools in a record's column "tools": a list, or the JSON text of one.

    Raises:
        DataError: It is neither.
    """
    tools = record.get("tools", [])
    if isinstance(tools, str):
        tools = _parsed(tools, "tools", where) if tools.strip() else []
    if isinstance(tools, list):
        tools = [_parsed(tool, "tools", where) if isinstance(tool, str) else tool for tool in tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError('"tools" is no list of objects, and no JSON text of one', where=where)
    return tuple(tools)


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


def with_system(record: Mapping[str, Any], messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """Puts a system prompt that stands in a column of its own before the messages.

    Raises:
        DataError: There are two such columns, or the messages begin with another system prompt.
    """
    found = [name for name in SYSTEMS if name in record]
    if len(found) > 1:
        raise DataError(f"it has {' and '.join(found)}, which mean the same", where=where)
    system = string_of(record, found[0], where) if found else ""
    if not system:
        return messages
    if messages and messages[0].role == "system":
        if messages[0].content == system:
            return messages
        raise DataError("the record has a system prompt, and its first message is another one", where=where)
    return (Message("system", system), *messages)
