"""An answer's text as its parts: reasoning, what is said, and calls of functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graftkit.flow.answering.call_notation import CallNotation, CallReader
from graftkit.flow.answering.reasoning_notation import ReasoningNotation, ReasoningReader
from graftkit.interfaces.samples import ToolCall

__all__ = ["AnswerReader", "Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of an answer, or of a piece of it.

    Attributes:
        reasoning: What the model wrote before it answered.
        content: What it says.
        calls: The functions that it calls.
    """

    reasoning: str = ""
    content: str = ""
    calls: Sequence[ToolCall] = ()


class AnswerReader:
    """Takes an answer's text apart as it comes; each of the arguments may be left out.

    Args:
        reasoning: How the chat template writes reasoning.
        calls: How it writes calls of functions.
        names: The functions that may be called.
    """

    def __init__(
        self,
        reasoning: ReasoningNotation | None = None,
        calls: CallNotation | None = None,
        names: Collection[str] = (),
    ) -> None:
        self._reasoning, self._calls = ReasoningReader(reasoning), CallReader(calls, names)

    def push(self, text: str) -> Parts:
        """Returns what a further piece of the text says for certain."""
        reasoning, said = self._reasoning.push(text)
        return Parts(reasoning, self._calls.push(said))

    def finish(self) -> Parts:
        """Returns what is left at the end of the text."""
        reasoning, said = self._reasoning.finish()
        content = self._calls.push(said)
        rest, calls = self._calls.finish()
        return Parts(reasoning, content + rest, calls)
