"""Texts on which tokenizers are compared with the libraries that they come from."""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path

from graftkit.testing.contracts.texts import TEXTS, every_character, random_texts

__all__ = ["comparison_texts"]

_PIECES = (
    *(" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85", "\u200b", "\ufeff", "\x00"),
    *("'s", "'S", "'ſ", "'ll", "'LL", "word", "Word", "WORD", "12", "3456", "１２", "½", "Ⅷ", "²", "_", "!?", "…", "—"),
    *(
        "é",
        "e\u0301",
        "日本",
        "مر",
        "कि",
        "한국",
        "Ａ",
        "ß",
        "ẞ",
        "İ",
        "ǅ",
        "K",
        "👩‍👩‍👧",
        "<s>",
        "[UNK]",
        "<|endoftext|>",
    ),
)


@cache
def comparison_texts(count: int = 3000) -> tuple[str, ...]:
    """Returns texts of several scripts, code, runs of white space, fuzz, and every character of Unicode."""
    draw = random.Random(3)
    lines = Path(sys.base_prefix, "lib/python3.11/argparse.py").read_text(encoding="utf-8").splitlines(keepends=True)
    code = ["".join(lines[start : start + 3]) for start in range(0, len(lines) - 3, 7)]
    mixed = ["".join(draw.choices(_PIECES, k=draw.randrange(1, 14))) for _ in range(count // 3)]
    fuzz = random_texts(count - len(mixed) - len(code) - len(TEXTS), seed=9)
    return (*TEXTS, *code, *mixed, *fuzz, *every_character(4096))
