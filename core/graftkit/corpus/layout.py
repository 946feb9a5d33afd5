"""Knows, for every character of a rendered conversation, whether the template or a message wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError
from graftkit.interfaces.samples import Message

__all__ = ["Piece", "lay_out"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the rendered text.

    Attributes:
        text: The stretch.
        message: The number of the message whose content it is, or None where the template wrote it.
    """

    text: str
    message: int | None


_FORMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.rstrip, str.lstrip)
_MARK = re.compile("(\ue000\\d+\ue001)")


_HINT = "Give another template with data.chat_template, or rows with a prompt and a completion."


def lay_out(
    template: ChatTemplate,
    messages: Sequence[Message],
    where: str,
    *,
    add_generation_prompt: bool = False,
) -> list[Piece]:
    """Renders a conversation and returns the pieces that make up the text.

    The conversation is rendered twice: as it is, and with a mark in place of each content. The marks say where each
    content goes; the first rendering says whether the template trims contents. Where both agree, every character's
    author is known; where they don't, the row is refused rather than guessed at.

    Raises:
        DataError: The template refuses the conversation, or rewrites a content.
    """
    marks = [_mark(number) if message.content else "" for number, message in enumerate(messages)]
    marked = template.render(
        [{"role": message.role, "content": mark} for message, mark in zip(messages, marks, strict=True)],
        where,
        add_generation_prompt=add_generation_prompt,
    )
    text = template.render(
        [{"role": message.role, "content": message.content} for message in messages],
        where,
        add_generation_prompt=add_generation_prompt,
    )
    for form in _FORMS:
        pieces = _pieces(marked, messages, form)
        if "".join(piece.text for piece in pieces) == text:
            return _complete(pieces, marks, where)
    raise DataError(
        "the chat template rewrites a message, so its tokens can't be told from the template's",
        where=where,
        hint=_HINT,
    )


def _complete(pieces: list[Piece], marks: Sequence[str], where: str) -> list[Piece]:
    """Refuses a layout without one of the messages: what nobody sees would silently not be trained on."""
    shown = {piece.message for piece in pieces}
    for number, mark in enumerate(marks):
        if mark and number not in shown:
            raise DataError(f"the chat template leaves out message {number + 1}", where=where, hint=_HINT)
    return pieces


def _pieces(marked: str, messages: Sequence[Message], form: Callable[[str], str]) -> list[Piece]:
    contents = {_mark(number): Piece(form(message.content), number) for number, message in enumerate(messages)}
    return [contents.get(part) or Piece(part, None) for part in _MARK.split(marked) if part]


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"
