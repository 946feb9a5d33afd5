"""Messages and tools of a request, as the chat template takes them."""

from __future__ import annotations

from typing import Any

from graftkit.interfaces.samples import Message, ToolCall
from graftkit.serve.api_error import invalid
from graftkit.serve.fields import Fields, items_of

__all__ = ["MOST_TOOLS", "message_of", "tool_of"]

MOST_TOOLS = 128
"""Tools of a request, and calls of a message, as in OpenAI's API."""

_MOST_PARTS = 1_000
_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {"developer": "system"}
_TEXT_ALONE = "the model reads and writes text alone"


def message_of(value: Any, path: str) -> Message:
    """Returns a message.

    Args:
        value: The JSON of it.
        path: Where it stands in the request.

    Raises:
        ApiError: It is malformed, or says something that the model is not given.
    """
    fields = Fields(value, path)
    given = fields.required("role")
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        hint = " Write a function's result as a message of the role tool." if given == "function" else ""
        raise invalid(fields.path("role"), f"{path}.role is none of {', '.join(_ROLES)}.{hint}")
    calls = _calls(fields) if role == "assistant" else ()
    content = _content(fields) if "content" in fields or not calls else ""
    reasoning = fields.text("reasoning_content") if role == "assistant" else None
    if role == "assistant":  # what clients send back of an answer that they got
        fields.only("refusal", "", why="the model's own text is its content")
        fields.only("audio", why=_TEXT_ALONE)
        fields.only("function_call", why="calls stand in tool_calls")
        fields.only("annotations", [], why=_TEXT_ALONE)
    message = Message(
        role,
        content,
        reasoning=reasoning or "",
        tool_calls=calls,
        tool_call_id=(fields.text("tool_call_id") if role == "tool" else None) or "",
        name=fields.text("name") or "",
    )
    fields.done()
    return message


def _content(fields: Fields) -> str:
    """Returns a message's text, whose parts may be given one by one."""
    found = fields.required("content")
    if isinstance(found, str):
        return found
    parts = items_of(found, fields.path("content"), _MOST_PARTS, "a string or a list of parts")
    return "".join(_part(part, path) for part, path in parts)


def _part(value: Any, path: str) -> str:
    fields = Fields(value, path)
    fields.only("type", "text", why=_TEXT_ALONE)
    text = fields.required_text("text")
    fields.done()
    return text


def _calls(fields: Fields) -> tuple[ToolCall, ...]:
    return tuple(_call(value, path) for value, path in fields.items("tool_calls", MOST_TOOLS) or ())


def _call(value: Any, path: str) -> ToolCall:
    fields = Fields(value, path)
    fields.only("type", "function", why="functions are the only tools")
    fields.skip("index")  # of a call that was put together from a stream
    id, function = fields.text("id"), Fields(fields.required("function"), fields.path("function"))
    fields.done()
    name, arguments = _named(function), function.text("arguments")
    function.done()
    return ToolCall(name, arguments or "{}", id or "")


def _named(function: Fields) -> str:
    """Returns a function's name."""
    name = function.required_text("name")
    if not name:
        raise invalid(function.path("name"), f"{function.path('name')} is empty")
    return name


def tool_of(value: Any, path: str) -> dict[str, Any]:
    """Returns the description of a function that may be called, as it was given.

    Args:
        value: The JSON of it.
        path: Where it stands in the request.

    Raises:
        ApiError: It describes no function, or asks for more than its description being given to the model.
    """
    fields = Fields(value, path)
    fields.only("type", "function", why="functions are the only tools")
    function = Fields(fields.required("function"), fields.path("function"))
    _named(function)
    function.only("strict", False, why="nothing makes the model keep to a schema")
    found: dict[str, Any] = value
    return found
