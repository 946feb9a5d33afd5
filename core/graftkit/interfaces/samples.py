"""What a format makes of a record: text of which the author of every part is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graftkit.interfaces.record_source import RecordSource

__all__ = ["LONG_TEXT", "ROLES", "Completion", "Conversation", "LongText", "Message", "Sample", "Text"]

ROLES = ("system", "user", "assistant", "tool")
"""Who may say something in a conversation, as chat templates call them."""

LONG_TEXT = 4 << 20
"""Size in bytes from which on a text is not held in memory: a reader gives its source instead."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: One of `ROLES`.
        content: What is said.
        weight: How much each of its tokens counts in the loss; None for 1 where the assistant says it and 0 else.
    """

    role: str
    content: str
    weight: float | None = None

    @property
    def loss_weight(self) -> float:
        """How much each of its tokens counts in the loss."""
        return self.weight if self.weight is not None else float(self.role == "assistant")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation; by default the loss is taken over the assistant's turns."""

    messages: tuple[Message, ...]
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return [
            [message.role, message.content, *([] if message.weight is None else [message.weight])]
            for message in self.messages
        ]


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its completion; the loss is taken over the completion."""

    prompt: str
    completion: str
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return [self.prompt, self.completion]


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; the loss is taken over all of it."""

    text: str
    where: str

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return self.text


@dataclass(frozen=True, slots=True)
class LongText:
    """The text of a large file, read in parts; the loss is taken over all of it."""

    source: RecordSource
    where: str

    @property
    def text(self) -> str:
        """The whole text."""
        return self.source.read_text()

    def key(self) -> Any:
        """Returns what makes this sample equal to another, as JSON."""
        return self.text


Sample = Conversation | Completion | Text | LongText
