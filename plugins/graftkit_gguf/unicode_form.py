"""The form of Unicode that a tokenizer gives text before it cuts it, as Qwen's does.

llama.cpp knows nothing of it and cuts text as it comes. So the file says so, under a key of graftkit's own, for what
reads it to normalize text first; most text has this form already.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, get_args

__all__ = ["UNICODE_FORM", "UnicodeForm", "form_of", "in_form"]

UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]

UNICODE_FORM = "graftkit.tokenizer.unicode_form"
"""The key of a GGUF file's metadata."""


def form_of(value: object) -> UnicodeForm | None:
    """Returns a value that names a form, or None.

    Args:
        value: Of the metadata, or the `type` of a normalizer in a tokenizer.json.
    """
    return next((form for form in get_args(UnicodeForm) if form == value), None)


def in_form(text: str, metadata: Mapping[str, Any]) -> str:
    """Returns a text in the form that a file's tokenizer wants.

    Args:
        text: The text.
        metadata: The file's.
    """
    form = form_of(metadata.get(UNICODE_FORM))
    return unicodedata.normalize(form, text) if form else text
