"""What a tokenizer does to a text before it cuts it, and llama.cpp does not, which cuts text as it comes.

It may give the text a form of Unicode, as Qwen's does, or take the white space beside a special token, as RoBERTa's
does before `<mask>`. The file says so under keys of graftkit's own, for what reads it to do so first; most text has
this form already.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from graftkit_gguf.metadata import Metadata

__all__ = [
    "FORM_KEYS",
    "LEFT",
    "RIGHT",
    "UNICODE_FORM",
    "UnicodeForm",
    "flags_of",
    "form_of",
    "in_form",
    "notices_of_spaces",
]

UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]

UNICODE_FORM = "graftkit.tokenizer.unicode_form"
LEFT, RIGHT = "graftkit.tokenizer.takes_spaces_before", "graftkit.tokenizer.takes_spaces_after"
"""The tokens that take the white space before them, and after them."""
FORM_KEYS = (UNICODE_FORM, LEFT, RIGHT)
"""The keys of a GGUF file's metadata."""


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

    Example:
        >>> in_form("a  <mask> b", {LEFT: ["<mask>"]})
        'a<mask> b'
    """
    form = form_of(metadata.get(UNICODE_FORM))
    for key, pattern in ((LEFT, r"\s+(?={})"), (RIGHT, r"(?<={})\s+")):
        for token in metadata.get(key, ()):
            text = re.sub(pattern.replace("{}", re.escape(token)), "", text)
    return unicodedata.normalize(form, text) if form else text


def flags_of(metadata: Metadata) -> dict[str, dict[str, bool]]:
    """Returns the flags of added tokens in a tokenizer.json by which they take the white space beside them.

    Args:
        metadata: The file's.

    Raises:
        ModelError: A key holds no texts.
    """
    found: dict[str, dict[str, bool]] = {}
    for key, flag in ((LEFT, "lstrip"), (RIGHT, "rstrip")):
        for token in metadata.texts(key) if key in metadata else ():
            found.setdefault(token, {})[flag] = True
    return found


def notices_of_spaces(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Says beside which tokens llama.cpp keeps white space that the tokenizer takes away.

    Args:
        metadata: What the file says of the tokenizer.
    """
    for key, side in ((LEFT, "before"), (RIGHT, "after")):
        if metadata.get(key):
            named = ", ".join(map(repr, metadata[key]))
            yield f"llama.cpp keeps white space {side} {named}, which the tokenizer takes away: leave it out of texts"
