"""Texts at which an answer ends, wherever tokens divide them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopTexts", "begun"]


def begun(text: str, sought: str) -> int:
    """Returns with how many of another text's first characters a text ends."""
    most = min(len(sought), len(text))
    return next((count for count in range(most, 0, -1) if text.endswith(sought[:count])), 0)


class StopTexts:
    """Ends an answer's text before the first of several texts: holds back what may be the beginning of one.

    Args:
        texts: The texts; none is empty.

    Attributes:
        found: Whether one of them came; nothing is part of the answer from then on.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._texts = tuple(texts)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Returns the text that is certainly part of the answer."""
        if self.found or not self._texts:
            return "" if self.found else text
        self._held += text
        places = [place for stop in self._texts if (place := self._held.find(stop)) >= 0]
        self.found = bool(places)
        return self._release(
            min(places) if places else len(self._held) - max(begun(self._held, stop) for stop in self._texts)
        )

    def finish(self) -> str:
        """Returns what is left, once nothing follows."""
        return "" if self.found else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text
