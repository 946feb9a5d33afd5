"""Turns ids into text as they come, each at a cost that does not grow with what came before."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftkit_tokenizers.tokenizer_json.token_bytes import TextStart

__all__ = ["ByteStream", "WindowStream", "looks_back"]

_WINDOW = 32
"""Tokens that are decoded together at most, while none of them is held back."""

_KEPT = 8
"""Tokens that stay when the window moves on."""

_TOKEN_BY_TOKEN = ("WordPiece", "Metaspace", "BPEDecoder", "CTC", "Replace")
_OPEN = "�"


def looks_back(decoder: Mapping[str, Any] | None) -> bool:
    """Tells whether what a decoder makes of a token may depend on more than the tokens right beside it."""
    if not decoder:  # tokens with spaces between them
        return False
    return not all(part.get("type") in _TOKEN_BY_TOKEN for part in decoder.get("decoders") or [decoder])


class ByteStream:
    """Decodes where text is bytes, joined: bytes are held back until they make whole characters.

    Args:
        bytes_of: Gives a token's bytes.
        start: Leaves out what is stripped from the start of the text.
    """

    def __init__(self, bytes_of: Callable[[int], bytes], start: TextStart) -> None:
        self._bytes_of = bytes_of
        self._start = start
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Returns the text that this token completes."""
        return self._start.push(self._decoder.decode(self._bytes_of(token)))

    def finish(self) -> str:
        """Returns what is left, an open character as U+FFFD."""
        return self._start.push(self._decoder.decode(b"", final=True))


class WindowStream:
    """Decodes anything else: shows how the text of the last tokens has grown.

    Args:
        decode: Gives the text of ids.
        looks_back: Whether that may depend on every token before; then all are decoded again each time.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, looks_back: bool) -> None:
        self._decode = decode
        self._looks_back = looks_back
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Returns the text that this token completes; empty while a character is still open."""
        self._ids.append(token)
        text = self._decode(self._ids)
        new = self._grown(text.rstrip(_OPEN))
        if len(self._ids) > _WINDOW and not self._looks_back and not text.endswith(_OPEN):
            self._move_on()
        return new

    def finish(self) -> str:
        """Returns what is left, an open character as U+FFFD."""
        return self._grown(self._decode(self._ids))

    def _grown(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new

    def _move_on(self) -> None:
        """Forgets all but the last tokens; not if none of them has a text, since a text's first token may differ."""
        kept = self._ids[-_KEPT:]
        text = self._decode(kept)
        if text:
            self._ids, self._shown = kept, len(text)
