"""Texts to compare two encoders of one tokenizer on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graftkit.tokenization.byte_alphabet import byte_alphabet

__all__ = ["proof_texts"]

_SPACES = (" ", "\n", "\t", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u200b", "\x0b", "\u0085")
_BESIDE = ("", "a", "1", ".", "é", "日", "'s")
_ODD = (
    "",
    "a" * 2000,
    "0123456789" * 40,
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE don't DON’T l'été",
    "👩‍👩‍👧 🎉🇩🇪 e\u0301 a\u0308\u0323 ﬁ Ⅷ ½ ² İ ı ß ẞ ς Σ",
    "مرحبا بالعالم नमस्ते สวัสดี 한국어 日本語のテキスト",
    "def f(x):\n    return {'a': [1, 2.5e-3]}  # ok\n\n\n\tif x:\r\n",
    "\x00\x01\x7f\ufeff\ufffd\ue000\uffff\U0010ffff",
    "<0x41> <s> </s> [INST] ▁▁a ▁ ## ##a Ġ Ċ",
)
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz  ", "aé🎉 \n\t", "0123456789.,- ", "ABCDEFabcdef_'’", "<|>/s[]im_endart")


def proof_texts(spec: Mapping[str, Any]) -> list[str]:
    """Returns texts for a tokenizer.json: all of Unicode, white space, its pieces and added tokens, random texts.

    They depend on the tokenizer alone.
    """
    draw = random.Random(0)
    pieces = _pieces(spec)
    added = [str(token["content"]) for token in spec.get("added_tokens", [])]
    return [
        *_ODD,
        *(
            f"{before}{space * count}{after}"
            for space in _SPACES
            for count in (1, 2, 3, 4, 7, 8, 16, 33)
            for before in _BESIDE
            for after in _BESIDE
        ),
        *_every_character(),
        *_joined(pieces, draw),
        *(f"{left}{name}{right}" for name in added for left, right in (("", ""), ("a", "b"), (" ", " "))),
        *("".join(_character(draw) for _ in range(draw.randrange(1, 60))) for _ in range(2000)),
    ]


def _every_character(size: int = 256) -> Iterator[str]:
    """Yields every character once, in order, without surrogates."""
    for start in range(0, 0x110000, size):
        if not 0xD800 <= start < 0xE000:
            yield "".join(map(chr, range(start, start + size)))


def _pieces(spec: Mapping[str, Any]) -> list[str]:
    """Returns the texts of the vocabulary's pieces, roughly: incomplete UTF-8 is left out."""
    vocab = spec.get("model", {}).get("vocab", {})
    names = list(vocab) if isinstance(vocab, dict) else [str(entry[0]) for entry in vocab]
    alphabet = byte_alphabet()
    return [_text_of(name, alphabet) for name in names]


def _text_of(name: str, alphabet: Mapping[str, int]) -> str:
    if all(character in alphabet for character in name):
        return bytes(alphabet[character] for character in name).decode("utf-8", "ignore")
    return name.replace("▁", " ").removeprefix("##")


def _joined(pieces: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yields texts of a hundred pieces each, in the vocabulary's order and in a random one."""
    for order in (pieces, draw.sample(pieces, len(pieces))):
        for start in range(0, len(order), 100):
            yield draw.choice(("", " ")).join(order[start : start + 100])


def _character(draw: random.Random) -> str:
    if draw.random() < 0.9:
        return draw.choice(draw.choice(_ALPHABETS))
    code = draw.randrange(0x3FFFF - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)
