"""How text is split before merging, for each name that `tokenizer.ggml.pre` may have here.

Each is a list of pre-tokenizers in the words of tokenizer.json. They were compared with llama.cpp for every
character of Unicode, with SmolLM2's vocabulary. They differ at 93 numerals of scripts that Unicode 16 and 17
added, which `smollm` sets apart and which llama.cpp's older tables don't know.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit.tokenization.splitting import PATTERNS, byte_level, isolate, split

__all__ = ["SPLITTINGS", "Splitting", "missing_bytes_apart"]


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is split for a value of `tokenizer.ggml.pre`.

    Attributes:
        pre_tokenizers: Applied one after the other; the last one maps bytes to characters.
        whole_words: Whether a word that is a token is not merged (`ignore_merges`).
        adds_bos: Whether a text starts with the beginning-of-sequence token unless the file says otherwise.
    """

    pre_tokenizers: tuple[dict[str, Any], ...]
    whole_words: bool = False
    adds_bos: bool = False


def missing_bytes_apart(vocabulary: Container[str]) -> list[dict[str, Any]]:
    """Returns the pre-tokenizer that a vocabulary without all 256 bytes needs, or none.

    llama.cpp and `tokenizers` drop a byte that is no token; but `tokenizers` would then merge the pieces left and right
    of it.
    """
    missing = [character for character in byte_alphabet() if character not in vocabulary]
    return [isolate(missing)] if missing else []


def _words(name: str) -> tuple[dict[str, Any], ...]:
    return split(PATTERNS[name]), byte_level(use_regex=False)


_LLAMA_3 = Splitting(_words("llama3"), whole_words=True, adds_bos=True)

SPLITTINGS: dict[str, Splitting] = {
    "gpt-2": Splitting((byte_level(use_regex=True),)),
    "llama-bpe": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "llama3": _LLAMA_3,
    "qwen2": Splitting(_words("qwen2")),
    "smollm": Splitting(({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True))),
}
"""Value of `tokenizer.ggml.pre` -> how text is split."""
