"""What a chat template writes at the end of an assistant's turn: where an answer ends, and is no part of it."""

from __future__ import annotations

from dataclasses import dataclass

from graftkit.corpus.encode import Encoder
from graftkit.errors import DataError, ModelError
from graftkit.flow.answering.stop_texts import begun
from graftkit.interfaces.samples import Conversation, Message

__all__ = ["TurnEnd", "Unended", "turn_end"]

_ANSWER = "fine"
"""What the assistant says in the conversation that a template is tried with."""


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The end of an assistant's turn.

    Attributes:
        text: What is written after the answer, up to the first special token; "" for nothing.
        stop: That special token, or None where the turn ends in text alone.
    """

    text: str = ""
    stop: int | None = None

    @property
    def is_stop(self) -> bool:
        """Whether an answer ends where the text comes: no special token follows, and it is no mere white space."""
        return self.stop is None and bool(self.text.strip())


def turn_end(encoder: Encoder) -> TurnEnd:
    """Lays out a short conversation, and returns what is learnt after the answer; nothing where no template does so.

    Args:
        encoder: It has a chat template.
    """
    try:
        asked = (Message("user", "well?"), Message("assistant", _ANSWER))
        [example] = encoder.encode(Conversation(asked, "a conversation to try the chat template with")).examples
    except (DataError, ModelError, ValueError):  # a template that takes no such conversation
        return TurnEnd()
    tokenizer = encoder.tokenizer
    learnt = example.ids[example.loss_mask].tolist()
    specials = {*tokenizer.special_tokens.values()}
    stop = next((place for place, token in enumerate(learnt) if token in specials), len(learnt))
    before, answer, after = tokenizer.decode(learnt[:stop]).partition(_ANSWER)
    if not answer or before.strip():
        return TurnEnd()
    return TurnEnd(after, learnt[stop] if stop < len(learnt) else None)


class Unended:
    """Takes the end of the turn out of an answer's text as it comes: holds back what may be its beginning.

    Args:
        end: The end of the turn.
    """

    def __init__(self, end: TurnEnd) -> None:
        self._end = end
        self._held = ""
        self.ended = False

    def push(self, text: str) -> str:
        """Returns the text that is certainly part of the answer; `ended` says whether the turn's end came."""
        self._held += text
        end = self._end.text
        if not end:
            return self._release(len(self._held))
        found = self._held.find(end) if self._end.is_stop else -1
        if found >= 0:
            self.ended = True
            return self._release(found)
        return self._release(len(self._held) - begun(self._held, end))

    def finish(self, *, stopped: bool) -> str:
        """Returns what is left.

        Args:
            stopped: Whether a stop token came, before which the end's text is no part of the answer.
        """
        whole = stopped and self._held == self._end.text
        return "" if whole or self.ended else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text
