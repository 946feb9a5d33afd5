"""Decodes ids one by one, in time linear in their number."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftkit.errors import ModelError

from graftkit_tokenizers.tokenizer_json.token_bytes import TextStart

__all__ = ["ByteStream", "WindowStream", "looks_back"]

_WINDOW = 32
"""Tokens that are decoded together at most, unless some are held back."""

_KEPT = 8
"""Tokens that stay when the window moves on."""

_BURST = 16
"""Where every token has to be decoded again, that is done once the text has grown by the 16th part."""

_LOCAL = {"BPEDecoder", "ByteFallback", "CTC", "Metaspace", "Replace", "Strip", "WordPiece"}
"""Decoders that map tokens one by one, or by their neighbours."""

_AFTER_FUSE = {"Fuse", "Strip"}
"""Decoders that change a fused text at its ends only."""

_OPEN = "\ufffd"


def looks_back(decoder: Mapping[str, Any] | None) -> bool:
    """Tells whether what a decoder makes of a token may depend on tokens far before it.

    Args:
        decoder: The field `decoder` of a tokenizer.json; None joins tokens with spaces.
    """
    if not decoder:
        return False
    kinds = [part.get("type") for part in decoder.get("decoders") or [decoder]]
    fused = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    return not (_LOCAL.issuperset(kinds[:fused]) and _AFTER_FUSE.issuperset(kinds[fused:]))


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
    """Decodes with any other decoder: decodes the last tokens again and returns what their text has grown by.

    A window of tokens is decoded, so that a token costs the same at any place of a text. Where the decoder looks back,
    all tokens are, less and less often: the cost of a text is still linear in its length, but it comes in bursts.

    Args:
        decode: Gives the text of ids.
        looks_back: Whether a token's text may depend on tokens far before it; see `looks_back`.
        is_open: Whether a run of byte pieces may go on after an id, for decoders with ByteFallback. What a run
            becomes is known at its end: text if all of it is UTF-8, or else U+FFFD for each byte.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        looks_back: bool,
        is_open: Callable[[int], bool] = lambda token: False,
    ) -> None:
        self._decode = decode
        self._looks_back = looks_back
        self._is_open = is_open
        self._ids: list[int] = []
        self._shown = 0
        self._due = 0

    def push(self, token: int) -> str:
        """Returns the text that this token completes; empty while a character is still open."""
        self._ids.append(token)
        if self._is_open(token) or len(self._ids) < self._due:
            return ""
        text = self._so_far(self._ids)
        new = self._grown(text.rstrip(_OPEN))
        if self._looks_back:
            self._due = len(self._ids) + len(self._ids) // _BURST
        elif len(self._ids) > _WINDOW and not text.endswith(_OPEN):
            self._move_on()
        return new

    def finish(self) -> str:
        """Returns what is left, an open character as U+FFFD.

        Raises:
            ModelError: The library can't decode these ids at once either.
        """
        return self._grown(self._decode(self._ids))

    def _so_far(self, ids: Sequence[int]) -> str:
        """Returns the text of ids; empty where the library fails, as its Strip does at texts of a few characters."""
        try:
            return self._decode(ids)
        except ModelError:
            return ""

    def _grown(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new

    def _move_on(self) -> None:
        """Drops all but the last tokens, unless those have no text: what comes first in a text may be changed."""
        kept = self._ids[-_KEPT:]
        text = self._so_far(kept)
        if text:
            self._ids, self._shown = kept, len(text)
