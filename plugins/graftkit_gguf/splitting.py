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
from graftkit.tokenization.splitting import GPT2, PATTERNS, byte_level, isolate, split

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


def _words(*patterns: str) -> tuple[dict[str, Any], ...]:
    """Returns the pre-tokenizers that split by one pattern after the other, each within the pieces of those before."""
    return *map(split, patterns), byte_level(use_regex=False)


_GPT2 = (byte_level(use_regex=True),)
_DIGITS_APART = ({"type": "Digits", "individual_digits": True}, *_GPT2)
_LLAMA_3 = _words(PATTERNS["llama3"])
_DEEPSEEK_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp takes no white space for part of the range that begins at U+0800.
_DEEPSEEK_SCRIPTS = r"(?:(?!\s)[一-龥ࠀ-一가-\ud7ff])+"
# llama.cpp's own forms of tekken's and o200k's patterns: it tells capitals from small letters in ASCII alone, and takes
# marks for no part of a word.
_CAPITALS, _SMALL = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_CASES = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_SMALL}+%s|[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_SMALL}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

_NAMED: tuple[tuple[Splitting, tuple[str, ...]], ...] = (
    (
        Splitting(_GPT2),
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "exaone4", "a.x-4.0", "mellum", "trillion"),
            *("roberta-bpe", "modern-bert", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es"),
        ),
    ),
    (
        Splitting(_DIGITS_APART),
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    ),
    (
        Splitting(_LLAMA_3, whole_words=True, adds_bos=True),
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    ),
    (Splitting(_LLAMA_3), ("dbrx", "smaug-bpe", "glm4", "chatglm-bpe")),
    (
        Splitting(_words(PATTERNS["qwen2"])),
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2"),
    ),
    (
        Splitting(
            _words(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            )
        ),
        ("qwen35",),
    ),
    (
        Splitting(
            _words(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+"
                r"|\s+(?!\S)|\s+"
            )
        ),
        ("seed-coder",),
    ),
    (Splitting(_words(r"\p{N}{1,3}", r"[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK_WORDS)), ("deepseek-v3", "hunyuan-dense")),
    (
        Splitting(_words(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_SCRIPTS, r"\p{N}")),
        ("deepseek-coder",),
    ),
    (
        Splitting(_words(r"[\p{P}$+<=>^~|`]+", GPT2, r"[0-9][0-9][0-9]")),
        ("falcon",),
    ),
    (Splitting(_words(_CASES % ("", "", "")), whole_words=True, adds_bos=True), ("tekken",)),
    (Splitting(_words(_CASES % (_ENDING, _ENDING, "{1,3}"))), ("gpt-4o", "llama4", "kanana2")),
    (Splitting(_words(r" ?[^(\s|.,!?…。，、।۔،)]+")), ("bloom", "poro-chat", "gpt3-finnish")),
    (Splitting(_words(r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")), ("viking",)),
)
"""How text is split, and every name of that; the first name is the one that is written."""

SPLITTINGS: dict[str, Splitting] = {name: splitting for splitting, names in _NAMED for name in names}
"""Value of `tokenizer.ggml.pre` -> how text is split."""
