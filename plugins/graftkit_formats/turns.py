"""Messages of a conversation, as records write them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from graftkit import Message, ToolCall
from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json, parse_strict_json
from graftkit.interfaces.record_format import kind_of
from graftkit.interfaces.samples import ROLES

from graftkit_formats.config import RolesConfig

__all__ = [
    "SYSTEMS",
    "TOOLS",
    "TurnKeys",
    "calls_in",
    "messages_of",
    "string_of",
    "tools_of",
    "turns_of",
    "with_system",
]

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
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

_CALLERS = frozenset({"function_call", "tool_call", "tool_calls"})
"""What ShareGPT's function calling calls an assistant whose text is the JSON of its calls."""

SYSTEMS = ("system", "system_prompt")
"""Columns that hold a system prompt."""

TOOLS = ("tools", "functions")
"""Columns that hold the descriptions of tools."""

_WEIGHTS = ("weight", "train", "training")
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
        hint = "What is learnt is text: write it as such, for example with jq's tostring or Python's json.dumps."
        raise DataError(f'"{key}" is {kind_of(value)}, no string', where=where, hint=hint)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f'"{key}" holds half of a surrogate pair, which is no text', where=where) from None
    return value


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """How the turns of a format are written.

    Attributes:
        format: What a recipe calls the format.
        role: The key under which a turn has its role.
        contents: The keys under which it may have its text, the usual one first.
    """

    format: str
    role: str = "role"
    contents: tuple[str, ...] = ("content",)

    @property
    def known(self) -> frozenset[str]:
        """The keys of a turn that are read."""
        return frozenset({self.role, *self.contents, *_WEIGHTS, *_REASONING, *_BESIDE})

    def role_of(self, name: Any, roles: Mapping[str, str], where: str) -> str:
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
            hint=f"Say what it means: format: {{use: {self.format}, roles: {{{_key(str(name))}: user}}}}.",
        )


def _key(name: str) -> str:
    """Returns a name as a recipe writes it."""
    return name if re.fullmatch(r"[A-Za-z][\w-]{0,99}", name) else json.dumps(name[:100])


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


def messages_of(turns: Sequence[Any], where: str, config: RolesConfig, keys: TurnKeys) -> tuple[Message, ...]:
    """Returns the messages of a list of turns.

    Args:
        turns: The turns.
        where: File and line.
        config: Names for roles besides those that are known, and the keys that are not read.
        keys: How turns are written.

    Raises:
        DataError: A turn is malformed, or holds more than is read; with its number.
    """
    said = [_said(turn, config.ignore, keys) for turn in turns]
    over = sorted({key for turn in said for key in turn} - keys.known)
    messages = []
    for number, turn in enumerate(said, 1):
        at = f"{where}: message {number}"
        if keys.role not in turn or turn.keys() - keys.known:
            told = ", ".join(turn) or ("nothing" if isinstance(turns[number - 1], dict) else kind_of(turns[number - 1]))
            raise DataError(
                f'a message has "{keys.role}" and "{keys.contents[0]}", and perhaps weight, name, reasoning_content, '
                f"tool_calls or tool_call_id; found {told}",
                where=at,
                hint=_ignoring([*config.ignore, *over], keys) if keys.role in turn else "",
            )
        messages.append(_message(turn, at, config.roles, keys))
    return tuple(messages)


def _ignoring(names: Sequence[str], keys: TurnKeys) -> str:
    shown = ", ".join(map(_key, names))
    return f"What a model need not know is left out with format: {{use: {keys.format}, ignore: [{shown}]}}."


def _said(turn: Any, ignored: Collection[str], keys: TurnKeys) -> dict[str, Any]:
    """Returns what a turn says: its keys but for those that are null, an empty list, or not to be read."""
    items = turn.items() if isinstance(turn, dict) else ()
    own = (keys.role, *keys.contents)
    return {
        str(key): value
        for key, value in items
        if value is not None and (value != [] or key in own) and key not in ignored
    }


def _message(turn: Mapping[str, Any], where: str, roles: Mapping[str, str], keys: TurnKeys) -> Message:
    contents = [key for key in keys.contents if key in turn]
    if len(contents) > 1:
        hint = _ignoring(contents[1:], keys)
        raise DataError(f"it has {' and '.join(contents)}, which mean the same", where=where, hint=hint)
    key, role = contents[0] if contents else keys.contents[0], turn[keys.role]
    if len(turn) == 2 and isinstance(turn.get(key), str) and isinstance(role, str) and (role in ROLES or role in roles):
        return Message(keys.role_of(role, roles, where), string_of(turn, key, where))
    if isinstance(role, str) and role not in roles and role.lower() in _CALLERS:
        beside = [name for name in ("tool_calls", "function_call") if name in turn]
        if beside:
            raise DataError(f"it has calls under {key} and beside it", where=where, hint=_ignoring(beside, keys))
        role, calls, content, thought = "assistant", calls_in(turn, key, where), "", ""
    else:
        calls = _calls(turn, where)
        content, thought = _content(turn if contents or not calls else {key: ""}, key, where)
    reasoning = [name for name in _REASONING if turn.get(name)]
    if len(reasoning) + bool(thought) > 1:
        told = " and ".join([*reasoning, *(["a part that is thinking"] if thought else [])])
        raise DataError(f"it has {told}, which mean the same", where=where)
    return Message(
        keys.role_of(role, roles, where),
        content,
        _weight(turn, where),
        reasoning=string_of(turn, reasoning[0], where) if reasoning else thought,
        tool_calls=calls,
        tool_call_id=string_of(turn, "tool_call_id", where) if "tool_call_id" in turn else "",
        name=string_of(turn, "name", where) if "name" in turn else "",
    )


def calls_in(turn: Mapping[str, Any], key: str, where: str) -> tuple[ToolCall, ...]:
    """Returns the calls that a text is the JSON of: one, or a list of them.

    Args:
        turn: What the text is in.
        key: Its key.
        where: File, line and message.

    Raises:
        DataError: It is no JSON of calls.
    """
    found = _parsed(string_of(turn, key, where), key, where)
    return _calls({"tool_calls": found if isinstance(found, list) else [found]}, where)


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
    beside, said = ({key: value for key, value in keys.items() if value is not None} for keys in (call, inner))
    said = {**beside, **said}
    twice = [key for key in ("id", "name", "arguments") if key in beside and beside[key] != said[key]]
    if twice:
        raise DataError(f'a call says "{twice[0]}" twice, and not the same', where=where)
    arguments = said.get("arguments", {})
    if not isinstance(arguments, dict | str):
        raise DataError(f'"arguments" is {kind_of(arguments)}, no object and no text of one', where=where)
    if isinstance(arguments, str):
        _refuse_keys_twice(arguments, where)
    id = string_of(said, "id", where) if "id" in said else ""
    return ToolCall(string_of(inner, "name", where), arguments, id)


def _refuse_keys_twice(arguments: str, where: str) -> None:
    """Refuses JSON text of which a template that takes objects would get one of two values.

    Raises:
        DataError: A key stands in an object of it twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            raise DataError('"arguments" is text of an object in which a key stands twice', where=where)

    with suppress(ValueError):  # no JSON
        parse_json(arguments, object_pairs_hook=unique)


def _parsed(text: str, key: str, where: str) -> Any:
    try:
        return parse_strict_json(text, 2_000_000)
    except ValueError as error:
        python = re.match(r"\s*\[?\s*\{\s*'", text)
        hint = "This is Python's notation: write the column with json.dumps, or the table as JSON." if python else ""
        raise DataError(f'"{key}" is text, but no JSON: {error}', where=where, hint=hint) from None


def tools_of(record: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """Returns the descriptions of tools in a record's column "tools": a list, or the JSON text of one.

    A column "functions" holds them as OpenAI's older format does: without the object that says "function" of each.

    Raises:
        DataError: It is neither, or there are both columns.
    """
    found = [name for name in TOOLS if record.get(name)]
    if len(found) > 1:
        raise DataError(f"it has {' and '.join(found)}, which mean the same", where=where)
    key = found[0] if found else "tools"
    tools = record.get(key, [])
    if isinstance(tools, str):
        tools = _parsed(tools, key, where) if tools.strip() else []
    if isinstance(tools, list):
        tools = [_parsed(tool, key, where) if isinstance(tool, str) else tool for tool in tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f'"{key}" is no list of objects, and no JSON text of one', where=where)
    return tuple({"type": "function", "function": tool} if key == "functions" else tool for tool in tools)


def _content(turn: Mapping[str, Any], key: str, where: str) -> tuple[str, str]:
    """Returns a message's text, and its reasoning; content in parts is joined where every part is one or the other."""
    content = turn.get(key)
    if not isinstance(content, list):
        return string_of(turn, key, where), ""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in content:
        found = part.get("type", "text") if isinstance(part, dict) else kind_of(part)
        kind = _PARTS.get(found) if isinstance(found, str) else None
        if kind is None or not isinstance(part, dict):
            raise DataError(
                f'"{key}" has a part of the type {json.dumps(found)}; parts of text are read',
                where=where,
                hint=_OTHER_PARTS.get(found, "") if isinstance(found, str) else "",
            )
        over = [name for name, value in part.items() if name not in (kind, *_OF_NO_MEANING) and value]
        if over:
            hint = _OTHER_PARTS.get(over[0], "Leave it out where a model need not know it.")
            raise DataError(
                f'"{key}" has a part with {over[0]} beside its {kind}, which is not read', where=where, hint=hint
            )
        if kind == "thinking" and any(texts["text"]):
            raise DataError(
                f'"{key}" has a part that is thinking after one of text; a message is learnt with its reasoning first',
                where=where,
                hint="Make two messages of it, or leave the record out.",
            )
        texts[kind].append(string_of(part, kind, where))
    return "".join(texts["text"]), "".join(texts["thinking"])


_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "thinking": "thinking"}
"""Types of parts, and the key that a part has its text under."""

_OF_NO_MEANING = frozenset(
    {"type", "id", "index", "annotations", "citations", "logprobs", "cache_control", "signature"}
)
"""Keys of a part that say nothing of its text to a model."""

_CALLS = (
    'Write calls as "tool_calls": [{"function": {"name": ..., "arguments": {...}}}], and results as messages with '
    '"role": "tool".'
)
_MEDIA = "Models are trained on text alone: leave such records out."
_OTHER_PARTS = {
    **dict.fromkeys(("tool_use", "tool_result", "tool_call"), _CALLS),
    **dict.fromkeys(("image", "image_url", "input_image", "video", "audio", "input_audio"), _MEDIA),
}


def _weight(turn: Mapping[str, Any], where: str) -> float | None:
    """Returns what a message says of its loss: "weight" as in OpenAI's format, a number, or "train", true or false."""
    said = [key for key in _WEIGHTS if key in turn]
    if not said:
        return None
    value = turn[said[0]]
    if len(said) > 1 or not isinstance(value, int | float) or not 0 <= value <= 1_000:
        raise DataError('"weight" is a number from 0 to 1,000, or "train" true or false', where=where)
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
        raise DataError(
            "the record has a system prompt, and its first message is another one",
            where=where,
            hint=f"To leave the column out, give it a name that is not read: columns: {{unread: {found[0]}}}.",
        )
    return (Message("system", system), *messages)
