"""The splitting rules that a model's trainer applied, so that added pieces follow them too."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

from graftkit_sentencepiece.proto import ModelProto

__all__ = ["PieceRules", "beginnings_and_ends"]

_SPACE = "▁"
_ANY = ""
_DIGITS = frozenset("0123456789０１２３４５６７８９")
_LETTERS = ("L", "M")
_COMMON = "COMMON"
_ALIKE = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "MATHEMATICAL": _COMMON, "MODIFIER": _COMMON}
"""Kana go with Han, as in the trainer; some letters belong to no script."""


class PieceRules:
    """The trainer's rules for a piece, as far as they were on: a space only first, one script, digits apart.

    A character's script is taken from its Unicode name, since Python has no table of scripts.

    Args:
        proto: The model, whose trainer_spec has the rules.

    Example:
        >>> rules = PieceRules(ModelProto(b"", (), splits={"whitespace": True, "unicode_script": True}))
        >>> [rules.allow(piece) for piece in ("▁word", "word▁word", "wordи", "▁1,")]
        [True, False, False, True]
    """

    def __init__(self, proto: ModelProto) -> None:
        self._on = proto.splits
        self._suffix = proto.whitespace_is_suffix

    def allow(self, piece: str) -> bool:
        """Tells whether the trainer could have learnt this piece."""
        return self._spaces_fit(piece) and self._digits_fit(piece) and self._scripts_fit(piece)

    def _spaces_fit(self, piece: str) -> bool:
        if not piece.strip(_SPACE):
            return len(piece) == 1 or self._on.get("whitespace_only_pieces", False)
        if self._on.get("whitespace"):
            return _SPACE not in (piece[:-1] if self._suffix else piece[1:])
        return (piece[0] if self._suffix else piece[-1]) != _SPACE

    def _digits_fit(self, piece: str) -> bool:
        return not self._on.get("digits") or len(piece) == 1 or _DIGITS.isdisjoint(piece)

    def _scripts_fit(self, piece: str) -> bool:
        if not self._on.get("unicode_script"):
            return True
        before = _ANY
        for character in piece.replace(_SPACE, ""):
            script = self._script(character) or before
            if before and script != before:
                return False
            before = script
        return True

    def _script(self, character: str) -> str:
        free = character in _DIGITS and not self._on.get("number")
        return _ANY if free else _script(character)


@cache
def _script(character: str) -> str:
    """Returns the script's name, COMMON for characters of no script, "" for combining marks."""
    category = unicodedata.category(character)
    owned = category.startswith(_LETTERS) or (category == "Nd" and character not in _DIGITS)
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    first = name.partition(" ")[0].partition("-")[0]
    if first == "COMBINING":
        return _ANY
    return _ALIKE.get(first, first) if owned else _COMMON


def beginnings_and_ends(pieces: Iterable[str]) -> set[str]:
    """Returns the proper prefixes and suffixes of these pieces that have two characters or more.

    Example:
        >>> sorted(beginnings_and_ends(["abcd"]))
        ['ab', 'abc', 'bcd', 'cd']
    """
    found: set[str] = set()
    for piece in pieces:
        found.update(piece[:end] for end in range(2, len(piece)))
        found.update(piece[start:] for start in range(1, len(piece) - 1))
    return found
