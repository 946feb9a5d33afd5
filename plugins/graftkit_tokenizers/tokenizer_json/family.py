"""The type of a tokenizer.json's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["family_of"]


def family_of(model: Mapping[str, Any]) -> str:
    """Returns "BPE", "Unigram", "WordPiece" or "WordLevel".

    Old files have no field `type`; the other fields tell.

    Args:
        model: The field `model` of a tokenizer.json.
    """
    signs = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
    guess = next((family for sign, family in signs.items() if sign in model), "WordLevel")
    return str(model.get("type") or guess)
