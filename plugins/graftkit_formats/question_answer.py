"""A question and its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation, Message
from graftkit.errors import DataError, NothingToLearn

from graftkit_formats.answered import conversation
from graftkit_formats.turns import SYSTEMS, calls_in, string_of, tools_of, with_system

__all__ = ["QuestionAnswer"]

_PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("user", "assistant"),
    ("input", "output"),
    ("prompt", "output"),
    ("inputs", "targets"),
    ("text_input", "output"),
    ("problem", "solution"),
    ("problem", "generated_solution"),
)
_CALLED = ("query", "answers")
"""A question and the calls that answer it, as JSON text, beside "tools"."""


class QuestionAnswer:
    """Reads `{"question": ..., "answer": ...}`, and other names for the two, as a conversation of two turns.

    Where the answer is called "answers", and tools stand beside it, it is the JSON text of calls.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where exactly one pair of names is there, as texts."""
        text = {name for name, column in found.items() if column.is_text}
        if {*_CALLED} <= text and "tools" in found:
            return [*_CALLED, "tools"]
        pairs = [pair for pair in _PAIRS if {*pair} <= text]
        if len(pairs) != 1 or "instruction" in text:
            return None
        return [*pairs[0], *(name for name in SYSTEMS if name in text)]

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        if {*_CALLED, "tools"} <= record.keys():
            asked = Message("user", string_of(record, _CALLED[0], where))
            called = Message("assistant", "", tool_calls=calls_in(record, _CALLED[1], where))
            return conversation((asked, called), where, tools_of(record, where))
        pairs = [pair for pair in _PAIRS if {*pair} <= record.keys()]
        if not pairs and any(question in record for question, _ in _PAIRS):
            raise NothingToLearn("the question has no answer", where=where)
        if len(pairs) != 1:
            told = ", ".join(f'"{name}"' for name in record) or "no keys"
            raise DataError(
                f"a record of this format has a question and an answer; found {told}",
                where=where,
                hint="Say which columns they are: columns: {question: THEIRS, answer: THEIRS}.",
            )
        question, answer = pairs[0]
        messages = (
            Message("user", string_of(record, question, where)),
            Message("assistant", string_of(record, answer, where)),
        )
        return conversation(with_system(record, messages, where), where)
