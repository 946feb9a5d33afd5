"""A conversation as chat templates are given it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any, overload

from graftkit.errors import DataError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.samples import Conversation, Message

__all__ = [
    "CALL_ID",
    "TOOLS",
    "ByAnswer",
    "Leaf",
    "TemplateForm",
    "sizes_of",
    "template_input",
    "texts_in",
    "with_content_in_parts",
]

TOOLS = -1
"""In place of a message's number, the conversation's tools."""

REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
"""What templates call a message's reasoning, the usual name first."""

CALL_ID = "tool call id"
"""The part of a message that many templates do not write, since it only says which result is of which call."""

_FRAME = 16
"""The characters that a template writes around a message, about."""

_STRUCTURE = ("role", "type")
"""Keys whose values are words of the form, not of the conversation."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One text of a conversation.

    Attributes:
        text: The text.
        message: The number of its message, or `TOOLS`.
        part: What it is of it, for errors: "", "reasoning", "tool calls", ...
    """

    text: str
    message: int
    part: str = ""

    @property
    def name(self) -> str:
        """What an error calls it: "message 2", "message 2's reasoning", "the tools"."""
        if self.message == TOOLS:
            return "the tools"
        return f"message {self.message + 1}" + (f"'s {self.part}" if self.part else "")

    @property
    def kind(self) -> str:
        """What a count calls it: "content", "reasoning", "tool calls", "tools"."""
        return self.part or "content"


@dataclass(frozen=True, slots=True)
class TemplateForm:
    """How a template is given what templates are given in several ways.

    Attributes:
        reasoning: The key of a message's reasoning.
        arguments_as_text: Whether a tool call's arguments are JSON text, in place of a mapping.
        system_in_user: Whether system messages at the beginning are part of the first user message.
        content_in_parts: Whether a content is a list of one part, `{"type": "text", "text": ...}`, in place of a text.
    """

    reasoning: str = REASONING[0]
    arguments_as_text: bool = False
    system_in_user: bool = False
    content_in_parts: bool = False


def template_input(
    conversation: Conversation, form: TemplateForm, mark: Callable[[Leaf], str]
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Returns the messages and the tools as a template takes them, with every text replaced.

    Args:
        conversation: The conversation.
        form: How the template is given them.
        mark: Returns what stands in a text's place.

    Raises:
        DataError: A system message is to be part of the first user message, and there is none.
    """
    messages = [_message(message, number, form, mark) for number, message in enumerate(conversation.messages)]
    if form.system_in_user:
        messages = _with_system_in_user(messages, conversation.where)
    if form.content_in_parts:
        messages = with_content_in_parts(messages)
    tools = [_mapped(tool, TOOLS, "tools", mark, frozenset(_keys(tool))) for tool in conversation.tools]
    return messages, tools or None


def with_content_in_parts(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns messages whose contents are texts with each as a list of one part: `{"type": "text", "text": ...}`."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _with_system_in_user(messages: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Returns the messages with those of the system's at the beginning before the first user message's text."""
    rest = list(dropwhile(lambda message: message["role"] == "system", messages))
    said = [message["content"] for message in messages[: len(messages) - len(rest)]]
    place = next((number for number, message in enumerate(rest) if message["role"] == "user"), None)
    if not any(said):
        return rest
    if place is None:
        raise DataError(
            "it has a system message, and no user message whose text could follow it",
            where=where,
            hint="data.system: own leaves the system message a turn of its own.",
        )
    rest[place] = {**rest[place], "content": "\n\n".join(filter(None, [*said, rest[place]["content"]]))}
    return rest


class ByAnswer(Sequence[Conversation]):
    """The conversation up to each message that is learnt, with that one alone learnt; made when it is asked for.

    Args:
        conversation: The conversation.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._unlearnt: list[Message] = []
        self._places = [
            place
            for place, message in enumerate(conversation.messages)
            if message.loss_weight and message.says_something
        ]

    def _before(self, place: int) -> list[Message]:
        """Returns the messages before a place, as what stands before an answer: none is learnt."""
        rest = self._conversation.messages[len(self._unlearnt) : place]
        self._unlearnt += [replace(message, weight=0.0) for message in rest]
        return self._unlearnt[:place]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Conversation: ...

    @overload
    def __getitem__(self, number: slice) -> list[Conversation]: ...

    def __getitem__(self, number: int | slice) -> Conversation | list[Conversation]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        place = self._places[number]
        messages = (*self._before(place), self._conversation.messages[place])
        return replace(self._conversation, messages=messages)


def texts_in(conversation: Conversation) -> list[str]:
    """Returns every text of a conversation that a template may write, in the order of its messages, tools last."""
    return [leaf.text for leaf in _leaves(conversation) if leaf.part != CALL_ID]


def sizes_of(conversation: Conversation) -> list[int]:
    """Returns the characters of each message, with those that templates write around one, about."""
    sizes = [_FRAME] * len(conversation.messages)
    for leaf in _leaves(conversation):
        if leaf.message != TOOLS:
            sizes[leaf.message] += len(leaf.text)
    return sizes


def _leaves(conversation: Conversation) -> list[Leaf]:
    leaves: list[Leaf] = []

    def keep(leaf: Leaf) -> str:
        leaves.append(leaf)
        return leaf.text

    template_input(conversation, TemplateForm(), keep)
    return leaves


def _message(message: Message, number: int, form: TemplateForm, mark: Callable[[Leaf], str]) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": mark(Leaf(message.content, number))}
    for key, part, text in (
        (form.reasoning, "reasoning", message.reasoning),
        ("name", CALL_ID if message.role == "tool" else "name", message.name),
        ("tool_call_id", CALL_ID, message.tool_call_id),
    ):
        if text:
            found[key] = mark(Leaf(text, number, part))
    if message.tool_calls:
        found["tool_calls"] = [
            _mapped(call, number, "tool calls", mark) for call in _calls(message, form.arguments_as_text)
        ]
    return found


def _calls(message: Message, as_text: bool) -> Iterator[dict[str, Any]]:
    for call in message.tool_calls:
        arguments = call.arguments
        if as_text and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        elif not as_text and isinstance(arguments, str):
            with suppress(ValueError):  # no JSON: it is given as it is
                arguments = parse_json(arguments)
        function = {"name": call.name, "arguments": arguments}
        yield {**({"id": call.id} if call.id else {}), "type": "function", "function": function}


def _keys(value: Any) -> Iterator[str]:
    """Yields the keys of JSON, at every depth."""
    if isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else ():
        yield from _keys(item)


def _mapped(
    value: Any, message: int, part: str, mark: Callable[[Leaf], str], kept: frozenset[str] = frozenset()
) -> Any:
    """Returns JSON with every text replaced but the form's own words and those kept; keys stay."""
    if isinstance(value, str):
        return value if value in kept else mark(Leaf(value, message, part))
    if isinstance(value, Mapping):
        return {
            key: item
            if key in _STRUCTURE and isinstance(item, str)
            else _mapped(item, message, CALL_ID if (part, key) == ("tool calls", "id") else part, mark, kept)
            for key, item in value.items()
        }
    return [_mapped(item, message, part, mark, kept) for item in value] if isinstance(value, list | tuple) else value
