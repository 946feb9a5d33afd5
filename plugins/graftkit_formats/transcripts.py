r"""Conversations that are one text, as Anthropic's HH-RLHF has them: "\n\nHuman: ...\n\nAssistant: ..."."""

from __future__ import annotations

import re

from graftkit import Message

__all__ = ["is_transcript", "messages_of_transcript"]

_SPEAKER = re.compile(r"\n\n(Human|Assistant):(?: |(?=\n)|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(text: str) -> bool:
    """Tells whether a text is a transcript: it begins with the mark of a human's turn, and has one of an answer."""
    return text.startswith("\n\nHuman: ") and "\n\nAssistant:" in text


def messages_of_transcript(text: str) -> tuple[Message, ...]:
    r"""Returns the messages of a transcript.

    Example:
        >>> [(message.role, message.content) for message in messages_of_transcript("\n\nHuman: Hi.\n\nAssistant: Yes?")]
        [('user', 'Hi.'), ('assistant', 'Yes?')]
    """
    marks = [*_SPEAKER.finditer(text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return tuple(
        Message(_ROLES[mark[1]], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    )
