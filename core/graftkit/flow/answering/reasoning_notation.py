"""How a chat template writes reasoning, and reasoning read from an answer that is written so."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from graftkit.corpus.encode import Encoder
from graftkit.errors import DataError, ModelError
from graftkit.flow.answering.stop_texts import begun
from graftkit.flow.answering.tried_answer import ASKED, try_answer
from graftkit.interfaces.samples import Conversation, Message

__all__ = ["ReasoningNotation", "ReasoningReader", "reasoning_notation"]

_REASONING, _ANSWER = "because it fits", "fine then"
_OPENED = re.compile(r"<(\w{1,40})>\s*\Z", re.ASCII)
"""A tag at the end of a generation prompt: an answer begins within it."""


@dataclass(frozen=True, slots=True)
class ReasoningNotation:
    """Reasoning before an answer, between two texts, such as `<think>` and `</think>`.

    Attributes:
        start: The text before it; "" where the generation prompt ends with that, so that an answer begins with
            reasoning.
        end: The text after it.
    """

    start: str
    end: str


def reasoning_notation(encoder: Encoder) -> ReasoningNotation | None:
    """Lays out an answer with reasoning, and returns how it is written; None where none is before the answer.

    Of a template that writes no reasoning, since it leaves that of earlier turns out, the generation prompt says it:
    where that ends with `<think>`, and the template looks for `</think>`, an answer begins with reasoning.

    Args:
        encoder: It has a chat template.
    """
    opened = _opened_by_prompt(encoder)
    text = try_answer(encoder, Message("assistant", _ANSWER, reasoning=_REASONING))
    start, found, rest = text.partition(_REASONING)
    end, answered, _ = rest.partition(_ANSWER)
    if found and answered:
        start, end = start.strip(), end.strip()
        return ReasoningNotation(start, end) if end and (start or opened) else None
    template = encoder.tokenizer.chat_template or ""
    return ReasoningNotation("", f"</{opened}>") if opened and f"</{opened}>" in template else None


def _opened_by_prompt(encoder: Encoder) -> str:
    """Returns the name of the tag that the generation prompt ends with, or ""."""
    with suppress(DataError, ModelError, ValueError):  # a template that takes no such conversation
        ids = encoder.prompt(Conversation((ASKED,), "a prompt to try the chat template with"))
        tag = _OPENED.search(encoder.tokenizer.decode(ids[-64:]))
        return tag[1] if tag else ""
    return ""


class ReasoningReader:
    """Takes the reasoning out of an answer's text as it comes: holds back what may be one of the texts around it.

    White space where they meet belongs to neither. Reasoning that is not ended is reasoning to its end.

    Args:
        notation: How reasoning is written; None where none is read.
    """

    def __init__(self, notation: ReasoningNotation | None = None) -> None:
        self._notation, self._held = notation, ""
        self._part = "answer" if notation is None else "start" if notation.start else "reasoning"
        self._trims = self._part == "reasoning"

    def push(self, text: str) -> tuple[str, str]:
        """Returns the reasoning and the answer that are certain."""
        self._held += text
        reasoning = answer = ""
        if self._part == "start":
            self._begin()
        if self._part == "reasoning":
            reasoning = self._reason()
        if self._part == "answer":
            answer = self._released(len(self._held))
        return reasoning, answer

    def finish(self) -> tuple[str, str]:
        """Returns the reasoning and the answer that are left."""
        rest, self._held = self._held, ""
        return (rest.rstrip(), "") if self._part == "reasoning" else ("", rest)

    def _begin(self) -> None:
        """Leaves the part before the answer as soon as it is certain whether the answer begins with reasoning."""
        assert self._notation is not None
        start, said = self._notation.start, self._held.lstrip()
        if said.startswith(start):
            self._part, self._held, self._trims = "reasoning", said[len(start) :], True
        elif not start.startswith(said):
            self._part = "answer"

    def _reason(self) -> str:
        """Returns the reasoning that is certain; leaves the part where its end came."""
        assert self._notation is not None
        end = self._notation.end
        place = self._held.find(end)
        if place < 0:
            known = self._held[: len(self._held) - begun(self._held, end)]
            return self._released(len(known.rstrip()))
        reasoning = self._released(len(self._held[:place].rstrip()))
        self._part, self._held, self._trims = "answer", self._held.lstrip().removeprefix(end), True
        return reasoning

    def _released(self, count: int) -> str:
        """Returns the first characters that are held; white space at the beginning of a part is left out."""
        text, self._held = self._held[:count], self._held[count:]
        if self._trims:
            text = text.lstrip()
            self._trims = not text
        return text
