"""Refuses conversations in which a special token is formed across the boundary of a message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from graftkit.corpus.layout import Piece
from graftkit.corpus.turns import TOOLS
from graftkit.errors import DataError
from graftkit.tokenization.text_search import TextSearch

__all__ = ["InjectionCheck"]


class InjectionCheck:
    """Finds special tokens that begin in one part of a layout and end in another.

    A special token that stands in a message as a whole is plain text, and one that the template wrote is special; one
    across both is neither: every program that reads the rendered text would make a control token of it, partly by the
    hand of whoever wrote the message.

    Args:
        specials: The special tokens' texts.
    """

    def __init__(self, specials: TextSearch) -> None:
        self._specials = specials

    def check(self, pieces: Sequence[Piece], where: str) -> None:
        """Checks a layout.

        Args:
            pieces: The rendered text, by author.
            where: The row's file and line.

        Raises:
            DataError: A special token stands across two pieces; with the message.
        """
        text = "".join(piece.text for piece in pieces)
        for place, message in _seams(pieces):
            special = self._specials.across(text, place)
            if special is not None:
                raise DataError(
                    f"its text and what stands beside it spell the special token {special!r} together",
                    where=f"{where}: {'the tools' if message == TOOLS else f'message {message + 1}'}",
                    hint="A word must not complete a control token: change the message, or the chat template.",
                )


def _seams(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Yields the boundaries between parts, with the message on either side."""
    end = 0
    for piece, following in pairwise(pieces):
        end += len(piece.text)
        message = piece.message if piece.message is not None else following.message
        if message is not None:
            yield end, message
