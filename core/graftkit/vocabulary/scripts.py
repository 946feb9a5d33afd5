"""Counts bytes and tokens of a corpus by script."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["ScriptCounter", "ScriptShare", "script_of"]

_Numbers = NDArray[Any]

_INHERITED = ""
"""The script of combining marks, joiners and single spaces: that of a neighbour."""

_NAMES = {"Cjk": "Han", "Ideographic": "Han"} | dict.fromkeys(
    ("Hiragana", "Katakana", "Katakana-Hiragana", "Hentaigana"), "Kana"
)
_EMOJI = (range(0x1F000, 0x20000), range(0x2600, 0x27C0), range(0x2B00, 0x2C00), range(0xE0020, 0xE0080))


@dataclass(frozen=True, slots=True)
class ScriptShare:
    """The part of a corpus in one script.

    Attributes:
        bytes: UTF-8 bytes of its characters.
        tokens: Tokens of them; one across two scripts is split by its bytes.
    """

    bytes: int
    tokens: float

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token, on average; 0 without tokens."""
        return self.bytes / self.tokens if self.tokens else 0.0


@cache
def script_of(character: str) -> str:
    """Returns the script of a letter, the first word of its Unicode name, or the kind of another character.

    Kinds are "digits", "punctuation" (with symbols), "emoji", "white space" and "other"; combining marks have "".

    Example:
        >>> [script_of(character) for character in "aж漢ひ7{🎉"]
        ['Latin', 'Cyrillic', 'Han', 'Kana', 'digits', 'punctuation', 'emoji']
    """
    category = unicodedata.category(character)
    name = unicodedata.name(character, "")
    if category in ("Mn", "Me", "Cf") and name.startswith(("COMBINING", "VARIATION", "ZERO WIDTH")):
        return _INHERITED
    if any(ord(character) in block for block in _EMOJI):
        return "emoji"
    if category[0] in "LM":
        return _script_of_letter(character)
    kinds = {"N": "digits", "P": "punctuation", "S": "punctuation", "Z": "white space"}
    return kinds.get(category[0], "white space" if character.isspace() else "other")


def _script_of_letter(character: str) -> str:
    """Returns the script in the name of the letter's NFKC form: without superscript, width, ligature or style."""
    plain = [part for part in unicodedata.normalize("NFKC", character) if unicodedata.category(part)[0] in "LM"]
    word = unicodedata.name(next(iter(plain), character), "other").title().split()[0]
    return _NAMES.get(word, word)


class ScriptCounter:
    """Counts bytes and tokens by script.

    A single space counts for the script after it; a token for the scripts of its characters, in proportion to their
    bytes. Line ends, tabs and runs of spaces are counted as "white space".

    Args:
        tokenizer: The tokenizer that the texts are encoded with.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lengths: dict[int, int] = {}
        self._bytes: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def add(self, text: str, ids: Sequence[int]) -> None:
        """Counts a text and its ids.

        Where the ids have more or fewer bytes than the text, since it was normalized or partly lost, the tokenizer's
        offsets are used.
        """
        names, kinds = _kinds(text)
        widths = _widths(text)
        lengths = np.array([self._length(id) for id in ids], dtype=np.int64)
        if int(lengths.sum()) == int(widths.sum()):
            places = np.repeat(np.arange(len(text)), widths)
            shares: _Numbers = np.bincount(places, np.repeat(1.0 / np.maximum(lengths, 1), lengths), len(text))
        else:
            shares = _shares_by_offsets(self._tokenizer, text)
        for totals, weights in ((self._bytes, widths), (self._tokens, shares)):
            found = np.bincount(kinds, weights, len(names)).tolist()
            totals.update({name: total for name, total in zip(names, found, strict=True) if total})

    def shares(self) -> dict[str, ScriptShare]:
        """Returns script -> counts, the script with the most bytes first."""
        sizes = sorted(self._bytes.items(), key=lambda item: (-item[1], item[0]))
        return {name: ScriptShare(round(size), float(self._tokens[name])) for name, size in sizes}

    def _length(self, id: int) -> int:
        if id not in self._lengths:
            self._lengths[id] = len(self._tokenizer.token_bytes(id))
        return self._lengths[id]


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _widths(text: str) -> _Numbers:
    """Returns the UTF-8 bytes of each character, `[characters]`."""
    codes = _codes(text)
    return np.ones(len(codes), dtype=np.int64) + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)


def _kinds(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the scripts in a text, and each character's index among them, `[characters]`."""
    distinct, places = np.unique(_codes(text), return_inverse=True)
    found = [script_of(chr(code)) for code in distinct.tolist()]
    names = sorted({*found, _INHERITED, "other"} - {_INHERITED})
    index = {name: number for number, name in enumerate(names)} | {_INHERITED: -1}
    kinds = np.array([index[name] for name in found], dtype=np.int64)[places]
    kinds[_single_spaces(text)] = -2
    _fill(kinds[::-1], -2)
    _fill(kinds, -1)
    kinds[kinds < 0] = index["other"]
    return names, kinds


def _single_spaces(text: str) -> NDArray[np.bool_]:
    codes = _codes(text)
    blank = (codes == 32) | ((codes >= 9) & (codes <= 13))
    beside = np.zeros(len(codes), dtype=bool)
    beside[1:] |= blank[:-1]
    beside[:-1] |= blank[1:]
    alone: NDArray[np.bool_] = (codes == 32) & ~beside
    return alone


def _fill(kinds: NDArray[np.int64], open_kind: int) -> None:
    """Replaces `open_kind` by the nearest other kind before it, in place, `[characters]`."""
    known = np.where(kinds == open_kind, -1, np.arange(len(kinds)))
    nearest: Any = np.maximum.accumulate(known)
    kinds[:] = np.where(nearest >= 0, kinds[np.maximum(nearest, 0)], kinds)


def _shares_by_offsets(tokenizer: Tokenizer, text: str) -> _Numbers:
    """Returns the tokens of each character, as fractions, by the tokenizer's offsets, `[characters]`."""
    spans = np.array(tokenizer.encode_offsets(text).offsets, dtype=np.int64).reshape(-1, 2)
    starts = np.minimum(spans[:, 0], len(text) - 1)
    lengths = np.maximum(spans[:, 1] - spans[:, 0], 1)
    ends = np.cumsum(lengths)
    places = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)
    return np.bincount(places, np.repeat(1.0 / lengths, lengths), len(text)).astype(np.float64)
