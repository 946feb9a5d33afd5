"""How a chat template writes calls of functions, and calls read from an answer that is written so."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.flow.answering.stop_texts import begun
from graftkit.flow.answering.tried_answer import try_answer
from graftkit.interfaces.samples import Message, ToolCall

__all__ = ["CallNotation", "CallReader", "call_notation"]

_NAME, _ARGUMENTS = "try_template", {"written": "here"}
_CALLS = tuple(ToolCall(_NAME, _ARGUMENTS, id) for id in ("call00001", "call00002"))
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "",
        "parameters": {"type": "object", "properties": {"written": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True)
class CallNotation:
    """Calls as JSON objects between texts, such as `<tool_call>{"name": "f", "arguments": {}}</tool_call>`.

    Attributes:
        start: The text before the first call, without special tokens.
        between: That between two calls; None where an answer has one call at most.
        end: That after the last one.
        name: The key of the function's name.
        arguments: The key of its arguments.
    """

    start: str
    between: str | None
    end: str
    name: str
    arguments: str

    def read(self, text: str) -> list[ToolCall] | None:
        """Returns the calls that a text consists of, their arguments as JSON text; None where it is anything else.

        White space may stand where calls and the texts around them meet.
        """
        if not text.startswith(self.start):
            return None
        text, calls = text[len(self.start) :].lstrip(), list[ToolCall]()
        while (found := _object_at(text, 0)) is not None:
            call, length = found
            name, arguments = call.get(self.name), _as_text(call.get(self.arguments))
            if not isinstance(name, str) or arguments is None:
                return None
            calls.append(ToolCall(name, arguments))
            text = text[length:].strip()
            if text == self.end:
                return calls
            if self.between is None or not text.startswith(self.between):
                return None
            text = text[len(self.between) :].lstrip()
        return None


def call_notation(encoder: Encoder, turn_end: str) -> CallNotation | None:
    """Lays out a conversation with calls, and returns how they are written; None where they are not JSON objects.

    Args:
        encoder: It has a chat template.
        turn_end: The text that the template ends an assistant's turn with.
    """
    for calls in (_CALLS, _CALLS[:1]):  # templates may refuse more than one
        text = try_answer(encoder, Message("assistant", "", tool_calls=calls), (_TOOL,))
        found = _calls_in(text.removesuffix(turn_end).strip()) if text else []
        if len(found) == len(calls):
            (first, name, arguments), (last, *_) = found[0], found[-1]
            text = text.removesuffix(turn_end).strip()
            between = text[first.stop : last.start].strip() if len(calls) > 1 else None
            return CallNotation(text[: first.start].strip(), between, text[last.stop :].strip(), name, arguments)
    return None


def _calls_in(text: str) -> list[tuple[slice, str, str]]:
    """Returns where the tried calls stand in a text, and the keys of their names and arguments."""
    found, start = [], text.find("{")
    while start >= 0:
        written = _object_at(text, start)
        names = [key for key, value in written[0].items() if value == _NAME] if written else []
        arguments = [key for key, value in written[0].items() if _are_arguments(value)] if written else []
        if written and names and arguments:
            found.append((slice(start, start + written[1]), names[0], arguments[0]))
        start = text.find("{", found[-1][0].stop if written and names and arguments else start + 1)
    return found


def _are_arguments(value: Any) -> bool:
    if not isinstance(value, str):
        return bool(value == _ARGUMENTS)
    try:
        return bool(json.loads(value) == _ARGUMENTS)
    except ValueError:
        return False


def _as_text(arguments: Any) -> str | None:
    """Returns arguments as JSON text; None where they are none."""
    if isinstance(arguments, str):
        return arguments
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False) if isinstance(arguments, dict) else None
    except ValueError:  # a number that is none of JSON's
        return None


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int] | None:
    """Returns the JSON object that begins at a place, and its length; None where there is none."""
    try:
        found, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return (found, end - start) if isinstance(found, dict) else None


class CallReader:
    """Takes calls out of an answer's text as it comes: holds back what may be the beginning of one.

    Args:
        notation: How calls are written; None where none are read.
        names: The functions that may be called. Where a call is nothing but a JSON object, others are text.
    """

    def __init__(self, notation: CallNotation | None = None, names: Collection[str] = ()) -> None:
        self._notation, self._names = notation, names
        self._held, self._given = "", False

    def push(self, text: str) -> str:
        """Returns the text that is certainly no part of a call."""
        self._held += text
        place = self._begin()
        found, self._held = self._held[:place], self._held[place:]
        self._given = self._given or bool(found.strip())
        return found

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Returns the text that is left, and the calls; what is no whole call is text."""
        calls = self._notation.read(self._held.strip()) if self._notation else None
        if self._notation and calls and not self._notation.start and any(c.name not in self._names for c in calls):
            calls = None
        return ("", calls) if calls else (self._held, [])

    def _begin(self) -> int:
        """Returns where in the text that is held a call may begin."""
        if self._notation is None:
            return len(self._held)
        if start := self._notation.start:
            place = self._held.find(start)
            return place if place >= 0 else len(self._held) - begun(self._held, start)
        return 0 if not self._given and self._held.lstrip()[:1] in ("", "{") else len(self._held)
