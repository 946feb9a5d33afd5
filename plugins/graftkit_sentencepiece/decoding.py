"""Decodes ids one by one to the text that SentencePieceProcessor.decode gives for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["PieceStream", "TokenText"]

_SPACE = "▁"


class TokenText(NamedTuple):
    """What one id contributes to a text.

    Attributes:
        text: The piece, with ▁ for a space; the text of an added token; empty for a byte.
        byte: The byte of a byte piece, 0 to 255, or None.
        is_piece: Whether ▁ in it means a space, and a leading one is dropped at the start of a text.
        breaks: Whether the text after it is decoded as a text of its own.
    """

    text: str
    byte: int | None = None
    is_piece: bool = False
    breaks: bool = False


class PieceStream:
    """A stream decoder.

    Args:
        of: Returns what an id contributes.
        drops_prefix: Whether one leading space of a text is dropped, since the model adds one (`add_dummy_prefix`).
        trims: Whether all leading spaces of a text are dropped (`remove_extra_whitespaces`).
        restarts: Whether the same holds for the text after a token with `breaks`.
    """

    def __init__(self, of: Callable[[int], TokenText], *, drops_prefix: bool, trims: bool, restarts: bool) -> None:
        self._of = of
        self._drops = drops_prefix or trims
        self._trims = trims
        self._restarts = restarts
        self._at_start = True
        self._pending = bytearray()

    def push(self, token: int) -> str:
        """Returns the text that this token completes; empty while a character is still open."""
        found = self._of(token)
        if found.byte is not None:
            self._pending.append(found.byte)
            return self._leaves(self._characters(final=False))
        before = self._leaves(self._characters(final=True))
        return before + (self._piece(found.text) if found.is_piece else self._other(found))

    def finish(self) -> str:
        """Returns what is left, each byte of an open character as U+FFFD."""
        return self._characters(final=True)

    def _leaves(self, shown: str) -> str:
        if shown:
            self._at_start = False
        return shown

    def _piece(self, text: str) -> str:
        if self._at_start and self._drops and text.startswith(_SPACE):
            text = text[1:]
            self._at_start = self._trims
        return self._leaves(text.replace(_SPACE, " "))

    def _other(self, found: TokenText) -> str:
        self._leaves(found.text)
        if found.breaks:
            self._at_start = self._restarts
        return found.text

    def _characters(self, *, final: bool) -> str:
        """Decodes the pending bytes as far as they are whole characters; a byte that is no UTF-8 becomes U+FFFD."""
        shown = ""
        while self._pending:
            try:
                shown += self._pending.decode()
                self._pending.clear()
            except UnicodeDecodeError as error:
                shown += self._pending[: error.start].decode()
                del self._pending[: error.start]
                if error.reason == "unexpected end of data" and not final:
                    break
                shown += "\ufffd"
                del self._pending[0]
        return shown
