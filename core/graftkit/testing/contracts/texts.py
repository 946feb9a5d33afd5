"""Texts that tokenizers stumble over."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["TEXTS", "every_character", "random_texts"]

TEXTS = (
    "a",
    "Hello, world",
    "  two  spaces  ",
    "\ttabs\nlines\r\n\n\n",
    "Grüße, é and e\u0301",
    "日本語のテキスト",
    "مرحبا بالعالم",
    "👩‍👩‍👧 🎉🇩🇪",
    "def f(x):\n    return {'a': [1, 2.5e-3]}\n",
    "12 345,67",
    "\x00\x7f\ufeff\ufffd\ue000",
    "\U0010ffff",
    "a" * 300,
    "<|user|> [INST] <s> </s> <unk> <0x41>",
)

_SURROGATES = range(0xD800, 0xE000)


def every_character(size: int = 1024) -> Iterator[str]:
    """Yields every character of Unicode once, in order, in texts of this many; half surrogates are no characters."""
    for start in range(0, 0x110000, size):
        yield "".join(chr(code) for code in range(start, start + size) if code not in _SURROGATES)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Returns short texts of characters from everywhere, and from where most texts are."""
    draw = random.Random(seed)
    alphabets = ("abcdefgh ", "aé🎉 \n", "0123456789.,-", "<|>/s[]im_endstart", None)
    return [
        "".join(_character(draw, draw.choice(alphabets)) for _ in range(draw.randrange(1, 24))) for _ in range(count)
    ]


def _character(draw: random.Random, alphabet: str | None) -> str:
    if alphabet:
        return draw.choice(alphabet)
    code = draw.randrange(0x110000 - len(_SURROGATES))
    return chr(code if code < _SURROGATES.start else code + len(_SURROGATES))
