"""A question and its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from graftkit import Column, Conversation, Message
from graftkit.errors import DataError, NothingToLearn
from graftkit.interfaces.record_format import kind_of

from graftkit_formats.answered import answer_of, beside_answer, conversation, earlier_turns
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


_FOUND = ("question", "answers")
"""A question and the places of its answers in a "context", as SQuAD has them."""


class QuestionAnswer:
    """Reads `{"question": ..., "answer": ...}`, and other names for the two, as a conversation of two turns.

    A column "history", a list of pairs, comes before them, and "reasoning_content" is thought before the answer. Where
    the answer is called "answers", and tools stand beside it, it is the JSON text of calls. SQuAD's `{"question": ...,
    "context": ..., "answers": {"text": [...], ...}}` is the question, the context after it, and its first answer.
    """

    def columns(self, found: Mapping[str, Column]) -> Collection[str] | None:
        """Fits where exactly one pair of names is there, as texts."""
        text = {name for name, column in found.items() if column.is_text}
        if {*_CALLED} <= text and "tools" in found:
            return [*_CALLED, "tools"]
        if "question" in text and "answers" in found and _is_found(found["answers"]):
            return [*_FOUND, *(name for name in ("context", *SYSTEMS) if name in text)]
        pairs = [pair for pair in _PAIRS if {*pair} <= text]
        if len(pairs) != 1 or "instruction" in text:
            return None
        return [*pairs[0], *(name for name in SYSTEMS if name in text), *beside_answer(found)]

    def reading(self, record: Mapping[str, Any]) -> str:
        """Says what is learnt where a question has several answers."""
        if not {*_FOUND} <= record.keys() or not isinstance(record["answers"], dict):
            return ""
        return f"{'the context follows its question; ' if 'context' in record else ''}of several answers the first"

    def sample(self, record: Mapping[str, Any], where: str) -> Conversation:
        """Returns the conversation."""
        if {*_CALLED, "tools"} <= record.keys():
            asked = Message("user", string_of(record, _CALLED[0], where))
            called = Message("assistant", "", tool_calls=calls_in(record, _CALLED[1], where))
            return conversation((asked, called), where, tools_of(record, where))
        if {*_FOUND} <= record.keys() and isinstance(record["answers"], dict):
            return conversation(with_system(record, _found(record, where), where), where)
        pairs = [pair for pair in _PAIRS if {*pair} <= record.keys()]
        if len(pairs) > 1:  # of which one may be of lists, such as of tokens
            pairs = [pair for pair in pairs if all(isinstance(record[name], str) for name in pair)]
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
            *earlier_turns(record, where),
            Message("user", string_of(record, question, where)),
            answer_of(record, answer, where),
        )
        return conversation(with_system(record, messages, where), where)


def _is_found(answers: Column) -> bool:
    """Tells whether a column holds answers as SQuAD does."""
    return (
        "object" in answers.types and answers.types <= {"object", "null"} and {"text", "answer_start"} <= answers.keys
    )


def _found(record: Mapping[str, Any], where: str) -> tuple[Message, Message]:
    """Returns a question with its context, and its first answer.

    Raises:
        NothingToLearn: It has none.
        DataError: Its answers are no texts.
    """
    texts = record["answers"].get("text")
    if texts in (None, []):
        raise NothingToLearn("the question has no answer", where=where)
    if not isinstance(texts, list):
        raise DataError(f'"text" in "answers" is {kind_of(texts)}, no list', where=where)
    asked = [string_of(record, name, where) for name in ("question", "context") if name in record]
    answer = string_of({"answers": texts[0]}, "answers", where)
    return Message("user", "\n\n".join(asked)), Message("assistant", answer)
