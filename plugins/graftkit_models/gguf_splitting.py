"""How text is split before merging, for each name that `tokenizer.ggml.pre` may have here.

Each is a list of pre-tokenizers in the words of tokenizer.json. They were compared with llama.cpp for every
character of Unicode, with SmolLM2's vocabulary. They differ at 93 numerals of scripts that Unicode 16 and 17
added, which `smollm` sets apart and which llama.cpp's older tables don't know.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

__all__ = ["SPLITTINGS", "Splitting", "byte_characters", "missing_bytes_apart"]


@dataclass(frozen=True, slots=True)
class Splitting:
    """What a name of `tokenizer.ggml.pre` means.

    Attributes:
        pre_tokenizers: Applied one after the other; the last one maps bytes to characters.
        whole_words: A piece that is a token is taken as it is, without merging.
        adds_bos: A text starts with the beginning-of-sequence token unless the file says otherwise.
    """

    pre_tokenizers: tuple[dict[str, Any], ...]
    whole_words: bool = False
    adds_bos: bool = False


def byte_characters() -> list[str]:
    """Returns for each byte the printable character that stands for it in a byte-level vocabulary.

    Bytes that are printable in Latin-1 stand for themselves, the others for the characters from U+0100 on
    (the map that GPT-2 introduced).

    Example:
        >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
        ('Ġ', 'a')
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


def missing_bytes_apart(vocabulary: Container[str]) -> list[dict[str, Any]]:
    """Returns the pre-tokenizer that a vocabulary without all 256 bytes needs, or none.

    A byte that is no token is left out, by llama.cpp and by `tokenizers`; but `tokenizers` would then merge
    what stood left and right of it.
    """
    missing = [character for character in byte_characters() if character not in vocabulary]
    escaped = "".join(f"\\x{{{ord(character):x}}}" for character in missing)
    return [_split(f"[{escaped}]")] if missing else []


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(splits: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": splits}


def _words(digits: str) -> tuple[dict[str, Any], ...]:
    """Contractions in any case, words with one mark before them, numbers, marks with line ends, white space."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        r"|[^\r\n\p{L}\p{N}]?\p{L}+"
        rf"|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return (_split(pattern), _byte_level(False))


_LLAMA_3 = Splitting(_words(r"\p{N}{1,3}"), whole_words=True, adds_bos=True)

SPLITTINGS: dict[str, Splitting] = {
    "gpt-2": Splitting((_byte_level(True),)),
    "llama-bpe": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "llama3": _LLAMA_3,
    "qwen2": Splitting(_words(r"\p{N}")),
    "smollm": Splitting(({"type": "Digits", "individual_digits": True}, _byte_level(True))),
}
"""Name in `tokenizer.ggml.pre` -> what it means."""
