"""The tokenizer.json of BERT's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.tokenization.tokenizer_json import tokenizer_json

__all__ = ["PREFIX", "wordpiece_json"]

PREFIX = "##"
"""The prefix of pieces inside a word."""


def wordpiece_json(
    vocab: Mapping[str, int],
    unknown: str,
    *,
    lowercase: bool,
    strip_accents: bool | None = None,
    chinese_characters: bool = True,
) -> dict[str, Any]:
    """Returns the tokenizer.json of a WordPiece vocabulary, without special tokens and post-processor.

    Args:
        vocab: Pieces and ids.
        unknown: The token for words that can't be made up of pieces.
        lowercase: Whether text is lowercased.
        strip_accents: Whether accents are removed; None: where text is lowercased.
        chinese_characters: Whether each Chinese character is a word of its own.
    """
    return tokenizer_json(
        {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": 100,
            "vocab": dict(vocab),
        },
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chinese_characters,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        decoder={"type": "WordPiece", "prefix": PREFIX, "cleanup": True},
    )
